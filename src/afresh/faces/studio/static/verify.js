// The page on which a file is dropped: files that are too large for a request are not sent.

const form = document.getElementById("verify");
const input = document.getElementById("file");
const words = document.getElementById("chosen");
const most = Number(form.dataset.most);

function check() {
  const size = [...input.files].reduce((sum, file) => sum + file.size, 0);
  const names = [...input.files].map((file) => file.name).join(", ");
  if (size > most) {
    const megabytes = (bytes) => `${Math.round(bytes / 1e6).toLocaleString()} MB`;
    words.textContent = `${names}: ${megabytes(size)}, and at most ${megabytes(most)} are sent. `
      + "Check larger files with the command afresh verify FILE.";
    input.value = "";
    return;
  }
  words.textContent = names;
  if (names) form.dispatchEvent(new Event("chosen"));
}

form.querySelector("[data-choose]").addEventListener("click", () => input.click());
input.addEventListener("change", check);
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  input.files = event.dataTransfer.files;
  check();
});
