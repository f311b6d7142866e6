// Voting: keys press the buttons that are shown; a pair can be judged once both of it were seen or heard; what was not
// answered is sent again.

const stage = document.getElementById("vote");
const error = document.getElementById("vote-error");
const KEYS = { a: "a", b: "b", t: "tie", s: "skip", u: "undo", q: "said", ArrowLeft: "a", ArrowRight: "b" };
const JUDGING = "[data-vote=a], [data-vote=b], [data-vote=tie]";
let last = null; // the button that was pressed last

for (const select of document.querySelectorAll("select[data-go]")) {
  select.addEventListener("change", () => { location.href = select.selectedOptions[0].dataset.to; });
}

if (stage) {
  document.addEventListener("htmx:afterSwap", (event) => { if (event.detail.target === stage) arrived(); });
  document.addEventListener("keydown", pressed);
  stage.addEventListener("click", (event) => {
    const button = event.target.closest("[data-vote], [data-play]");
    if (button?.dataset.play) play(Number(button.dataset.play) - 1);
    else if (button) chosen(button);
  });
  error.addEventListener("click", (event) => { if (event.target.closest("[data-again]")) again(); });
  document.addEventListener("htmx:sendError", () => {
    fail("The program does not answer. If it was stopped, start it again and load this page: all votes that were confirmed are kept.");
  });
  document.addEventListener("htmx:beforeRequest", (event) => { if (stage.contains(event.target)) error.replaceChildren(); });
  window.addEventListener("resize", fit);
  arrived();
}

function pressed(event) {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const own = event.target.closest("input, textarea, select, audio, .words");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (own && (key.startsWith("Arrow") || !own.matches("audio, .words"))) return;
  const side = key === "1" || key === "2" ? stage.querySelector(`[data-play="${key}"]`) : null;
  const button = side ?? (KEYS[key] && stage.querySelector(`[data-vote=${KEYS[key]}]`)) ?? (key === "q" && stage.querySelector("[data-vote=end]"));
  if (!button) return;
  event.preventDefault();
  if (!button.disabled) button.click();
}

function chosen(button) {
  last = button;
  button.closest(".side")?.classList.add("chosen");
}

function again() {
  if (last?.isConnected && last.dataset.vote) last.click();
  else location.reload();
}

function fail(words) {
  const notice = document.createElement("div"), text = document.createElement("span"), button = document.createElement("button");
  notice.className = "notice bad row spread";
  notice.setAttribute("role", "alert");
  text.textContent = words;
  button.type = "button";
  button.dataset.again = "";
  button.textContent = "Send again";
  notice.append(text, button);
  error.replaceChildren(notice);
}

// ------------------------------------------------------------------ both sides are seen or heard

function arrived() {
  const pair = stage.querySelector("[data-pair]");
  if (!pair) return;
  if (pair.dataset.form === "image") images(pair);
  if (pair.dataset.form === "sound") sounds(pair);
}

function ready(pair) {
  for (const button of pair.querySelectorAll(JUDGING)) button.disabled = false;
}

async function images(pair) {
  try {
    await Promise.all([...pair.querySelectorAll("img")].map((image) => image.decode()));
  } catch {
    if (pair.isConnected) fail("An image cannot be shown. Load the page again, or skip the pair.");
    return;
  }
  fit();
  ready(pair);
}

// The largest whole factor, so that every pixel is a square of the same size.
function fit() {
  for (const image of stage.querySelectorAll(".vote-pair .look img")) {
    const box = getComputedStyle(image.parentElement);
    const room = [image.parentElement.clientWidth - 2 * parseFloat(box.paddingLeft), image.parentElement.clientHeight - 2 * parseFloat(box.paddingTop)];
    const factor = Math.min(room[0] / image.naturalWidth, room[1] / image.naturalHeight);
    if (image.naturalWidth) image.style.width = `${image.naturalWidth * (factor > 1 ? Math.floor(factor) : factor)}px`;
  }
}

function sounds(pair) {
  const players = [...pair.querySelectorAll("audio")];
  const heard = players.map(() => false);
  players.forEach((player, i) => {
    player.addEventListener("playing", () => {
      heard[i] = true;
      players.forEach((other) => { if (other !== player) other.pause(); });
      if (heard.every(Boolean)) ready(pair);
    });
    player.addEventListener("error", () => fail("A sound cannot be played. Load the page again, or skip the pair."));
  });
}

function play(i) {
  const player = stage.querySelectorAll("audio")[i];
  player.currentTime = 0;
  player.play().catch(() => {});
}
