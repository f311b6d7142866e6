// The page of a forecast: what the table says is asked for once, and every forecast of it by the verb's own route, with
// the values that were set as the given future. The same noise is drawn each time, so that what changes is what follows.

import { fan } from "./fan.js";
import { onceBack } from "../server.js";

const PAUSE = 350; // milliseconds after the last key in which another may come
const FEW = 12; // columns that are shown at first
const NARROW = 640; // pixels below which one horizon of the past is shown
const desk = document.getElementById("forecast");
const by = (id) => document.getElementById(id);
const fans = new Map(); // charts by the names of columns
const set = new Map(); // by the names of columns, a Map of values by their steps
let file = null; // the table that was chosen, instead of that of the run
let table = null, ahead = null, before = null, csv = "";
let every = false, current = null, waiting = 0;

by("desk").addEventListener("submit", (event) => event.preventDefault());
by("choose").addEventListener("click", () => by("file").click());
by("file").addEventListener("change", (event) => {
  const [given] = event.target.files;
  event.target.value = "";
  if (given) take(given);
});
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  const [given] = event.dataTransfer.files;
  if (given) take(given);
});
by("series").addEventListener("change", () => read());
by("horizon").addEventListener("change", () => { if (by("horizon").reportValidity()) read(); });
by("forget").addEventListener("click", () => {
  set.clear();
  draw();
  ask();
});
by("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = `data:text/csv;base64,${csv}`;
  link.download = "forecast.csv";
  link.click();
});
by("all").addEventListener("click", () => {
  every = true;
  arrange();
});
matchMedia(`(max-width: ${NARROW}px)`).addEventListener("change", () => draw());
read();

function take(given) {
  file = given;
  by("series").replaceChildren();
  read();
}

// --------------------------------------------------------------------------- asking the server

async function read() {
  const form = new FormData();
  form.set("run", desk.dataset.run);
  form.set("horizon", by("horizon").value);
  form.set("series", by("series").value);
  if (file) form.set("table", file);
  const found = await answer("The table is read", desk.dataset.table, { body: form, headers: { "hx-request": "true" } }, read);
  if (!found) return;
  table = { ...found, ahead: found.times.length - found.past };
  set.clear();
  ahead = before = null;
  by("source").textContent = file ? `from where ${file.name} ends` : "from where its data ends";
  by("which").hidden = found.names.length < 2;
  by("series").replaceChildren(...found.names.map((name) => new Option(name, name, false, name === found.name)));
  arrange();
  ask();
}

async function ask() {
  clearTimeout(waiting);
  if (!table) return;
  const given = future();
  const body = { model: desk.dataset.run, horizon: table.ahead, start: past(), ...(given ? { given } : {}) };
  const request = { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const found = await answer("The forecast is drawn", desk.dataset.verb, request, ask);
  if (!found) return;
  ahead = found.series[0].columns;
  if (!count()) before = ahead;
  csv = found.files["forecast.csv"];
  by("save").disabled = false;
  say(`${found.members} futures of ${table.ahead} steps${count() ? `, given ${count()} value${count() > 1 ? "s" : ""} that you set` : ""}`);
  remark(found.notes);
  draw();
}

// The answer as JSON, or null if it did not come, or if something else was asked for meanwhile. A refusal is shown.
async function answer(words, address, request, again) {
  current?.abort();
  const mine = (current = new AbortController());
  by("fault").hidden = true;
  by("working").hidden = false;
  say(words);
  try {
    const came = await fetch(address, { method: "POST", signal: mine.signal, ...request });
    const text = await came.text();
    if (mine !== current) return null;
    if (came.ok) return JSON.parse(text);
    say("");
    by("fault").textContent = fault(text) || `The server answered ${came.status}.`;
    by("fault").hidden = false;
  } catch (error) {
    if (mine === current && error.name !== "AbortError") onceBack(desk, again);
  } finally {
    if (mine === current) by("working").hidden = true;
  }
  return null;
}

function fault(text) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return new DOMParser().parseFromString(text, "text/html").body.textContent.trim();
  }
}

function say(words) {
  by("state").textContent = words;
}

// Columns that are told in advance, and of which the table does not say all, keep their last value.
function remark(notes) {
  const held = Object.entries(table.known).filter(([, values]) => values.slice(table.past).includes(null)).map(([name]) => name);
  const lines = held.length ? [...notes, `The table does not say what comes of ${held.join(", ")}, which the model is told in advance: the last value is kept until you set another.`] : notes;
  by("notes").textContent = lines.join(" ");
  by("notes").hidden = !lines.length;
}

// --------------------------------------------------------------------------- what is given

function count() {
  return [...set.values()].reduce((n, values) => n + values.size, 0);
}

function past() {
  const out = { [table.time]: table.times.slice(0, table.past), ...table.values };
  for (const [name, values] of Object.entries(table.known)) out[name] = values.slice(0, table.past);
  return out;
}

function future() {
  const out = {};
  for (const name of Object.keys(table.values)) if (set.get(name)?.size) out[name] = line(name);
  for (const name of Object.keys(table.known)) out[name] = line(name);
  return Object.keys(out).length ? { [table.time]: table.times.slice(table.past), ...out } : null;
}

// What is given of each step of a column: what was set, a straight line between two values that were set, and of columns
// that are known in advance what the table says before the first and the last one set after it; null where nothing is.
function line(name) {
  const values = [...(set.get(name) ?? [])].sort(([a], [b]) => a - b);
  const out = base(name);
  values.forEach(([step, value], i) => {
    out[step] = value;
    const [next, then] = values[i + 1] ?? [name in table.known ? table.ahead : step, value];
    for (let k = step + 1; k < next; k++) out[k] = value + ((then - value) * (k - step)) / (next - step);
  });
  return out;
}

function base(name) {
  const known = table.known[name];
  if (!known) return Array(table.ahead).fill(null);
  let last = known.slice(0, table.past).findLast((v) => v !== null) ?? 0;
  return known.slice(table.past).map((v) => (last = v ?? last));
}

// --------------------------------------------------------------------------- what is shown

function arrange() {
  const names = [...Object.keys(table.known), ...Object.keys(table.values)];
  const shown = every ? names : names.slice(0, FEW);
  fans.clear();
  for (const name of shown) fans.set(name, fan(name, name in table.known, { look, set: change, remove }));
  by("fans").replaceChildren(...[...fans.values()].map((f) => f.part));
  by("all").hidden = shown.length === names.length;
  draw();
  look(Math.floor(table.ahead / 2));
}

function draw() {
  if (!table) return;
  for (const name of fans.keys()) drawOne(name);
  by("forget").disabled = !count();
}

function drawOne(name) {
  const back = Math.min(table.past, table.ahead * (innerWidth <= NARROW ? 1 : table.shown));
  const values = (table.values[name] ?? table.known[name]).slice(0, table.past);
  fans.get(name).show({
    times: shortened(table.times).slice(table.past - back),
    past: values.slice(table.past - back),
    ahead: ahead?.[name] ?? null,
    before: count() && before?.[name] ? before[name]["q0.5"] : null,
    line: line(name),
    set: set.get(name) ?? new Map(),
  });
}

// Times without what all of them share at the end: seconds, or the hour of days.
function shortened(times) {
  for (const end of [" 00:00:00", ":00"]) {
    if (times.every((t) => t.length === 19 && t.endsWith(end))) return times.map((t) => t.slice(0, -end.length));
  }
  return times;
}

function look(step) {
  for (const f of fans.values()) f.look(step);
}

function change(name, step, value, final) {
  if (!Number.isFinite(value)) return;
  set.set(name, (set.get(name) ?? new Map()).set(step, value));
  drawOne(name);
  by("forget").disabled = false;
  if (final) soon();
}

function remove(name, step) {
  if (!set.get(name)?.delete(step)) return;
  draw();
  soon();
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(ask, PAUSE);
}
