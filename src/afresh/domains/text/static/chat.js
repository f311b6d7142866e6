// Conversations: Enter sends, an answer that is being written is replaced by the one that is kept, and what cannot be
// sent stays where it was written.

const say = document.getElementById("say");
const message = document.getElementById("message");
const error = document.getElementById("chat-error");
const list = document.getElementById("chats");

list.open = matchMedia("(min-width: 56rem)").matches;
for (const select of document.querySelectorAll("select[data-go]")) {
  select.addEventListener("change", () => { location.href = select.selectedOptions[0].dataset.to; });
}

message?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!document.getElementById("send").disabled) say.requestSubmit();
  }
});

document.addEventListener("htmx:sendError", () => fail("The server does not answer. What you wrote stays here: start the server again, then send it."));
document.addEventListener("htmx:beforeRequest", () => error?.replaceChildren());

function fail(words) {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.setAttribute("role", "alert");
  notice.textContent = words;
  error?.replaceChildren(notice);
}

// The whole answer, with what can be done with it, is on the page itself. A message that is being written is kept.
const writing = document.querySelector("[data-writing]");
document.addEventListener("htmx:sseClose", () => {
  if (message?.value) sessionStorage.setItem(`draft ${location.pathname}`, message.value);
  location.reload();
});
document.addEventListener("htmx:sseError", () => fail("The server does not answer. What was said is kept: start the server again, and load this page."));
document.addEventListener("htmx:sseOpen", () => error?.replaceChildren());

const key = `draft ${location.pathname}`;
if (message && !message.value && sessionStorage.getItem(key)) message.value = sessionStorage.getItem(key);
sessionStorage.removeItem(key);
(writing ?? document.querySelector(".message:last-child"))?.scrollIntoView({ block: "end" });
if (message && matchMedia("(min-width: 56rem)").matches) message.focus({ preventScroll: true });

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break; // pages of other machines that are not served by https
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.closest(".message").querySelector("[data-text]").content.textContent);
    button.firstChild.textContent = "Copied";
  });
}
