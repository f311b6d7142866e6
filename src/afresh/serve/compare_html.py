"""The page on which a person chooses between two items: a single file of HTML, style and script.

Images and sounds differ in the markup of the sides and in three functions: `load(id)` shows a pair and throws an error
if it cannot be shown, `seen()` returns whether the pair can be judged yet, and `pressed(key)` handles further keys.
"""

from __future__ import annotations


def page_html(view: str, token: str) -> str:
    """The page for pairs of items that are viewed as images or sounds. Its requests have the token."""
    out = HTML
    for name, text in PARTS[view].items():
        out = out.replace(name, text)
    return out.replace("TOKEN", token)


IMAGES = {
    "SIDES": """\
      <button class="side" data-vote="a"><img alt="image A"><span>A <kbd>&larr; or a</kbd></span></button>
      <button class="side" data-vote="b"><img alt="image B"><span>B <kbd>&rarr; or b</kbd></span></button>""",
    "HINT": "",
    "MEDIA": """\
const images = [...document.querySelectorAll(".side img")], broken = "An image cannot be shown.";
Object.assign(keys, {ArrowLeft: "a", ArrowRight: "b"});

function fit() {  // the largest whole factor, so that every pixel is a square of the same size
  const room = Math.min($("pair").clientWidth / 2 - 36, window.innerHeight * 0.62);
  for (const i of images) if (i.naturalWidth) {
    const factor = room / Math.max(i.naturalWidth, i.naturalHeight);
    i.style.width = i.naturalWidth * (factor > 1 ? Math.floor(factor) : factor) + "px";
  }
}
window.addEventListener("resize", fit);

function seen() { return true; }

function pressed(key) { return false; }

async function load(id) {
  images.forEach((image, i) => { image.src = `/image?token=${token}&id=${id}&side=${"ab"[i]}`; });
  await Promise.all(images.map(i => i.decode()));
  fit();
}""",
}

# Both sounds must have been started before one can be chosen. A sound is fetched completely, because players would
# otherwise request ranges. Arrow keys seek within a focused player, so they do not choose.
SOUNDS = {
    "SIDES": """\
      <div class="side"><audio controls preload="auto" aria-label="sound A"></audio><div>
        <button data-play="0">play <kbd>1</kbd></button> <button data-vote="a">A <kbd>a</kbd></button></div></div>
      <div class="side"><audio controls preload="auto" aria-label="sound B"></audio><div>
        <button data-play="1">play <kbd>2</kbd></button> <button data-vote="b">B <kbd>b</kbd></button></div></div>""",
    "HINT": "Play both, then choose.",
    "MEDIA": """\
const sounds = [...document.querySelectorAll("audio")], broken = "A sound cannot be played.";
let heard = [false, false];

function seen() { return heard[0] && heard[1]; }

function play(i) {
  if (!ready) return;
  sounds[i].currentTime = 0;
  sounds[i].play().catch(() => {});
}

function pressed(key) {
  if (key !== "1" && key !== "2") return false;
  play(key - 1);
  return true;
}

sounds.forEach((sound, i) => sound.addEventListener("playing", () => {
  if (!ready) return;
  heard[i] = true; sounds[1 - i].pause(); enable(true);
}));
document.querySelectorAll("[data-play]").forEach(b => b.addEventListener("click", () => play(+b.dataset.play)));

async function load(id) {
  heard = [false, false];
  sounds.forEach(sound => sound.pause());
  await Promise.all(sounds.map(async (sound, i) => {
    const reply = await fetch(`/sound?id=${id}&side=${"ab"[i]}`, {headers: {"X-Token": token}});
    if (!reply.ok) throw new Error(reply.status);
    const before = sound.src, content = await reply.blob();
    await new Promise((done, failed) => {
      sound.onloadedmetadata = done; sound.onerror = failed;
      sound.src = URL.createObjectURL(content); sound.load();
    });
    if (before) URL.revokeObjectURL(before);
  }));
}""",
}

PARTS = {"image": IMAGES, "sound": SOUNDS}

HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>afresh compare</title>
<style>
:root { color-scheme: light dark; --page: #fbfaf7; --sheet: #fff; --ink: #22231f; --quiet: #5d5f58; --rule: #d8d6cd;
  --accent: #0b6b62; --warn: #fdf3dc; --warn-rule: #d9a441; }
@media (prefers-color-scheme: dark) { :root { --page: #16181a; --sheet: #1d2022; --ink: #e6e5df; --quiet: #a5a69f;
  --rule: #3b4043; --accent: #63c9bb; --warn: #2f2819; --warn-rule: #b98a35; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; min-height: 100vh; min-height: 100dvh; display: flex; flex-direction: column; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
header, main, footer { width: 100%; max-width: 72rem; margin: 0 auto; padding: .8rem 1rem; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
#progress { font-weight: 600; font-variant-numeric: tabular-nums; }
#asked { overflow-wrap: anywhere; white-space: pre-wrap; max-height: 7.5em; overflow-y: auto; }
#bar { flex-basis: 100%; height: 4px; border-radius: 2px; background: var(--rule); overflow: hidden; }
#bar div { height: 100%; width: 0; background: var(--accent); }
h1 { font-size: 1.25rem; text-align: center; margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
#winners { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .6rem; margin: .6rem 0; }
#winners figure { margin: 0; padding: .6rem; background: var(--sheet); border: 1px solid var(--rule);
  border-radius: .5rem; text-align: center; }
#winners img { width: 100%; image-rendering: pixelated; }
main { flex: 1; display: flex; flex-direction: column; justify-content: center; gap: .8rem; }
#pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
button { font: inherit; color: inherit; background: var(--sheet); border: 1px solid var(--rule); border-radius: .5rem;
  padding: .6rem .9rem; cursor: pointer; touch-action: manipulation; }
button:hover:enabled, button:focus-visible { border-color: var(--accent); }
button:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
button:disabled { opacity: .45; cursor: default; }
.side { display: flex; flex-direction: column; align-items: center; justify-content: space-between; gap: .5rem;
  padding: .6rem; min-width: 0; }
.side audio { width: 100%; }
.side img { display: block; max-width: 100%; image-rendering: pixelated; }
.others { display: grid; grid-template-columns: repeat(auto-fit, minmax(6rem, 1fr)); gap: .6rem; }
kbd { font: .85em ui-monospace, Menlo, Consolas, monospace; color: var(--quiet); }
@media (hover: none) { kbd { display: none; } }
#hint { text-align: center; color: var(--quiet); margin: .8rem 0; min-height: 1.5em; }
#error { background: var(--warn); border: 1px solid var(--warn-rule); border-radius: .5rem; padding: .7rem .9rem; }
#error button { margin-left: .6rem; }
#end p { margin: .25rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
footer { color: var(--quiet); font-size: .9rem; }
</style>
</head>
<body>
<header><span id="progress" aria-live="polite"></span><span id="asked"></span><div id="bar"><div></div></div></header>
<main>
  <div id="error" role="alert" hidden><span></span><button id="again">send again</button></div>
  <div id="choice" hidden>
    <h1 id="which"></h1>
    <div id="pair">
SIDES
    </div>
    <p id="hint">HINT</p>
    <div class="others">
      <button data-vote="tie">tie <kbd>t</kbd></button>
      <button data-vote="skip">skip <kbd>s</kbd></button>
      <button id="undo">undo <kbd>u</kbd></button>
      <button data-vote="stop">stop <kbd>q</kbd></button>
    </div>
  </div>
  <div id="end" hidden>
    <h1 id="ended"></h1>
    <div id="winners"></div>
    <div id="lines"></div>
    <div class="others" id="last">
      <button id="back">undo the last vote <kbd>u</kbd></button>
      <button id="finish">finish <kbd>q</kbd></button>
    </div>
  </div>
</main>
<footer id="summary" aria-live="polite"></footer>
<script>
"use strict";
const token = "TOKEN", keys = {a: "a", b: "b", t: "tie", s: "skip", q: "stop"};
const $ = id => document.getElementById(id), judging = ["a", "b", "tie"];
const buttons = [...document.querySelectorAll("[data-vote]")];
let now = null, ready = false, last = null, undoable = false, over = false;

// A pair can only be judged once both items were seen or heard.
function may(said) { return ready && !!now && (seen() || !judging.includes(said)); }

function enable(on) {
  ready = on; buttons.forEach(b => { b.disabled = !may(b.dataset.vote); });
  $("undo").disabled = $("back").disabled = !ready || !undoable; $("finish").disabled = !ready;
}

function fail(text, retry) {
  last = retry; $("error").firstChild.textContent = text; $("error").hidden = false; enable(false);
}

async function call(path, body) {
  const how = body === undefined ? {} : {method: "POST", body: JSON.stringify(body)};
  let reply, value;
  try {
    reply = await fetch(path, {...how, headers: {"X-Token": token, "Content-Type": "application/json"}});
    value = await reply.json();
  } catch (e) {
    throw new Error("The program does not answer. If it was stopped, start the same command again and open the new " +
      "address; all votes that it confirmed are saved.");
  }
  if (!reply.ok) throw new Error(value.error);
  return value;
}

MEDIA

async function show(state) {
  $("error").hidden = true; now = state.question; last = null;
  $("choice").hidden = !now; $("end").hidden = !!now;
  over = !!state.over; undoable = now ? state.undo : !over; $("bar").hidden = !now;
  if (!now) {
    $("progress").textContent = "Done"; $("asked").textContent = ""; $("summary").textContent = "";
    $("ended").textContent = state.winners.length ? "Preferred most often" : "";
    $("winners").replaceChildren(...state.winners.map(w => {
      const figure = document.createElement("figure"), words = document.createElement("figcaption");
      const image = new Image();
      words.textContent = image.alt = `${w.wins} ${w.wins === 1 ? "win" : "wins"}`;
      image.src = "data:image/png;base64," + w.png;
      figure.append(image, words); return figure; }));
    $("lines").replaceChildren(...[state.kept, ...state.end, over ? "This page can be closed." : ""].map(line => {
      const p = document.createElement("p"); p.textContent = line; return p; }));
    $("last").hidden = over; enable(!over);
    return;
  }
  enable(false); $("which").textContent = now.which;
  $("progress").textContent = `${now.number} of ${now.of}`; $("asked").textContent = now.asked.join("\\n");
  $("bar").firstChild.style.width = 100 * (now.number - 1) / now.of + "%"; $("summary").textContent = state.summary;
  try { await load(now.id); }
  catch (e) { fail(broken, () => show(state)); return; }
  enable(true);
}

async function send(work) {
  enable(false);
  let state;
  try { state = await work(); }
  catch (e) { fail(e.message, () => send(work)); return; }
  await show(state);
}

function vote(said) {
  if (!may(said)) return;
  const id = now.id;
  send(() => said === "stop" ? call("/stop", {}) : call("/vote", {id, vote: said}));
}

function undo() { if (ready && undoable) send(() => call("/undo", {})); }
function finish() { if (ready && !now) send(() => call("/stop", {})); }

// Whoever closes the page after the last vote has finished.
window.addEventListener("pagehide", () => {
  if (!now && !over && ready) {
    fetch("/stop", {method: "POST", body: "{}", keepalive: true, headers: {"X-Token": token}});
  }
});

buttons.forEach(b => b.addEventListener("click", () => vote(b.dataset.vote)));
$("undo").addEventListener("click", undo); $("back").addEventListener("click", undo);
$("finish").addEventListener("click", finish);
$("again").addEventListener("click", () => { if (last) last(); });

// Elements for which the space key has a function.
function own(target) { return target.id === "again" || target.tagName === "AUDIO"; }

document.addEventListener("keydown", e => {
  if (e.key === " " && !own(e.target)) e.preventDefault();
  if (e.repeat || e.ctrlKey || e.metaKey || e.altKey) return;
  const key = e.key.length === 1 ? e.key.toLowerCase() : e.key, said = keys[key];
  if (key === "u") { e.preventDefault(); undo(); return; }
  if (key === "q" && !now) { e.preventDefault(); finish(); return; }
  if (said) { e.preventDefault(); vote(said); }
  else if (now && pressed(e.key)) e.preventDefault();
});
document.addEventListener("keyup", e => { if (e.key === " " && !own(e.target)) e.preventDefault(); });
send(() => call("/state"));
</script>
</body>
</html>
"""
