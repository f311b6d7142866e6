// Forms whose answer is a page are sent here and not by the browser. A refusal is shown beside what was typed, which
// stays, and where the server is gone they wait until it is back.

import { onceBack } from "./server.js";

const SHORT = 400; // milliseconds that need no sign of progress

export function sendForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const own = new URL(form.action).origin === location.origin;
    if (event.defaultPrevented || !own || form.method !== "post" || form.matches("[hx-post], [data-leaves]")) return;
    event.preventDefault();
    if (!form.dataset.sending) send(form, event.submitter);
  });
}

async function send(form, submitter) {
  const body = form.enctype === "multipart/form-data" ? new FormData(form, submitter) : new URLSearchParams(new FormData(form, submitter));
  form.dataset.sending = "true";
  form.querySelectorAll("[data-told]").forEach((part) => part.remove());
  const sign = setTimeout(() => tell(form, working()), SHORT);
  let answer, text;
  try {
    answer = await fetch(form.action, { method: "POST", body, headers: { accept: "text/html" } });
    text = await answer.text();
  } catch {
    onceBack(form, () => send(form, submitter));
    return;
  } finally {
    clearTimeout(sign);
    form.querySelectorAll("[data-told]").forEach((part) => part.remove());
    delete form.dataset.sending;
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  if (answer.redirected) location.assign(answer.url);
  else if (answer.ok) show(page);
  else tell(form, refusal(page, answer.status));
}

// The answer takes the place of what was shown; where one had scrolled to stays.
function show(page) {
  const main = document.getElementById("main");
  main.replaceChildren(...page.getElementById("main").childNodes);
  document.title = page.title;
  htmx.process(main);
  main.focus({ preventScroll: true });
}

function refusal(page, status) {
  const said = page.querySelector("main [role=alert]")?.textContent.trim();
  const part = document.createElement("p");
  part.className = "notice bad prewrap";
  part.role = "alert";
  part.textContent = said || `The server answered ${status}.`;
  return part;
}

function working() {
  const part = document.createElement("progress");
  part.ariaLabel = "The server is working on it";
  return part;
}

function tell(form, part) {
  part.dataset.told = "";
  form.append(part);
  part.scrollIntoView({ block: "nearest" });
}
