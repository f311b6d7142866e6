// Whether the server answers. What could not be sent waits until it does, and is sent then: nothing that was typed is
// lost, and nobody has to look whether the server is back.

const SIGN = new URL("icon.svg", import.meta.url); // what anybody may ask for
const EVERY = 1500; // milliseconds between two questions
const PATIENCE = 8000; // milliseconds without an answer after which there is none
const waiting = new Map(); // what is done once the server is back, by what asked for it

export async function answers() {
  try {
    return (await fetch(SIGN, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) })).ok;
  } catch {
    return false;
  }
}

// Do something as soon as the server answers again. Of what one part of the page asks for, only the last is done.
export function onceBack(part, action) {
  const alone = !waiting.size;
  waiting.set(part, action);
  document.getElementById("unreachable").hidden = false;
  if (alone) watch();
}

async function watch() {
  do await new Promise((done) => setTimeout(done, EVERY)); while (!(await answers())); // also where one address alone fails
  document.getElementById("unreachable").hidden = true;
  const actions = [...waiting.values()];
  waiting.clear();
  for (const action of actions) action();
}

// Requests of htmx that did not arrive are sent again, and a stream that broke is asked why.
export function watchRequests() {
  document.addEventListener("htmx:sendError", (event) => {
    const { elt, requestConfig } = event.detail;
    const cause = requestConfig.triggeringEvent; // none: the page asked by itself
    onceBack(elt, () => {
      if (cause) elt.dispatchEvent(new Event(cause.type, { bubbles: true, cancelable: true }));
      else location.reload();
    });
  });
  document.addEventListener("htmx:sseError", async (event) => {
    const live = event.target.closest("[data-live]"); // what it shows may have changed meanwhile
    if (!(await answers())) onceBack(event.target, () => { if (live) location.reload(); });
  });
}
