// The form of the page on which one creates: what is not touched is not sent, earlier wishes come back, the cursor of a
// text is where it is completed.

export function form(create) {
  const results = document.getElementById("results");
  const empty = document.getElementById("empty");
  const run = create.closest("[data-run]").dataset.run;
  sliders(create);
  past(create, `wishes of ${run}`);

  document.getElementById("run").addEventListener("change", (event) => { location.href = event.target.value; });
  document.getElementById("dice").addEventListener("click", () => {
    document.getElementById("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  });

  const text = document.getElementById("prompt");
  text?.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
      event.preventDefault();
      create.requestSubmit();
    }
  });

  create.addEventListener("htmx:configRequest", (event) => {
    if (event.target !== create || !text) return;
    const data = event.detail.formData;
    if (data.get("verb") !== "complete") return;
    data.set("prompt", text.value.slice(0, text.selectionStart));
    data.set("suffix", text.value.slice(text.selectionEnd));
  });

  const sent = new WeakMap(); // what each batch was asked for with
  create.addEventListener("htmx:afterRequest", (event) => {
    if (event.target !== create || !event.detail.xhr.status) return; // it did not arrive, and waits
    empty.hidden = true;
    const newest = results.firstElementChild;
    if (newest) {
      sent.set(newest, event.detail.requestConfig.formData);
      newest.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
  });

  // A stream that breaks ends what was being made. It comes back without it, as soon as the server does.
  document.addEventListener("htmx:sseError", (event) => {
    const batch = event.target.closest?.("[data-batch]");
    if (batch) batch.dataset.broken = "";
  });
  document.addEventListener("htmx:sseClose", (event) => {
    const batch = event.target.closest?.("[data-batch]");
    if (!batch) return;
    const unfinished = batch.querySelectorAll(".making");
    batch.classList.add("done");
    batch.querySelectorAll(".stop").forEach((button) => button.remove());
    if ("broken" in batch.dataset && unfinished.length) goOn(batch, sent.get(batch));
    unfinished.forEach((card) => card.remove());
  });

  // Of a batch that was broken off, nothing is made twice: it begins anew with the same seed if nothing of it was
  // finished, and otherwise says what is missing.
  async function goOn(batch, data) {
    if (data && !batch.querySelector(".work")) {
      data.set("seed", batch.dataset.seed);
      const answer = await fetch(create.getAttribute("hx-post"), { method: "POST", body: data, headers: { "hx-request": "true" } });
      const part = document.createElement("template");
      part.innerHTML = await answer.text();
      const anew = part.content.firstElementChild;
      sent.set(anew, data);
      batch.replaceWith(anew);
      htmx.process(anew);
      return;
    }
    const note = document.createElement("p");
    note.className = "notice small";
    note.role = "status";
    note.textContent = "The connection to the server was lost while this was made. What was finished is kept; ask again for the rest.";
    batch.prepend(note);
  }
}

// A slider that nobody moved has no name, so that the model's own way is kept.
function sliders(create) {
  for (const field of create.querySelectorAll("[data-slider]")) {
    const input = field.querySelector("input[type=range]");
    const output = field.querySelector("output");
    const reset = field.querySelector("[data-reset]");
    input.addEventListener("input", () => moved(input, output, reset));
    reset?.addEventListener("click", () => {
      rest(input, output, reset);
      input.focus();
    });
  }
}

function moved(input, output, reset) {
  input.name = input.dataset.name;
  output.textContent = Number(input.value).toLocaleString("en", { maximumFractionDigits: 4 });
  if (reset) reset.hidden = false;
}

function rest(input, output, reset) {
  input.removeAttribute("name");
  input.value = input.dataset.begin;
  output.textContent = input.dataset.rest;
  if (reset) reset.hidden = true;
}

// Earlier wishes of this run, kept as long as the page's tab is.
function past(create, key) {
  const undo = document.getElementById("undo");
  const redo = document.getElementById("redo");
  let wishes = [];
  try { wishes = JSON.parse(sessionStorage.getItem(key)) || []; } catch { wishes = []; }
  let at = wishes.length;

  const show = () => {
    undo.disabled = at <= 0;
    redo.disabled = at >= wishes.length - 1;
  };
  const go = (to) => {
    at = Math.max(0, Math.min(wishes.length - 1, to));
    fill(create, wishes[at]);
    show();
  };
  undo.addEventListener("click", () => go(at - 1));
  redo.addEventListener("click", () => go(at + 1));
  create.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target !== create) return;
    const wish = [...new FormData(create)].filter(([name, value]) => typeof value === "string" && !["input", "verb"].includes(name));
    if (JSON.stringify(wish) !== JSON.stringify(wishes[wishes.length - 1])) wishes.push(wish);
    wishes = wishes.slice(-50);
    at = wishes.length - 1;
    try { sessionStorage.setItem(key, JSON.stringify(wishes)); } catch { /* a full store only forgets */ }
    show();
  });
  show();
}

function fill(create, wish) {
  const given = new Map(wish);
  for (const input of create.elements) {
    const name = input.dataset.name || input.name;
    if (!name || input.type === "hidden" || input.type === "file" || name === "verb" || name === "input") continue;
    if (input.tagName === "SELECT" && !given.has(name)) continue;
    if (input.type === "radio") input.checked = input.value === (given.get(name) ?? "");
    else if (input.type === "checkbox") input.checked = given.has(name);
    else if (input.dataset.name) {
      const field = input.closest("[data-slider]");
      const parts = [input, field.querySelector("output"), field.querySelector("[data-reset]")];
      if (given.has(name)) {
        input.value = given.get(name);
        moved(...parts);
      } else rest(...parts);
    } else if ("value" in input && input.type !== "submit" && input.type !== "button") input.value = given.get(name) ?? "";
  }
}
