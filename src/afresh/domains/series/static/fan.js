// The chart of one column: its last values, the fan of what may come, and values of the future that a person sets by
// dragging them or with the arrow keys. Steps count from the first one that is forecast; those of the past are negative.

const HEIGHT = 210;
const EDGE = { left: 58, right: 16, top: 12, bottom: 26 };
const NEAR = 14; // pixels around a value that was set in which it is meant
const MOVED = 4; // pixels from which a press is a drag
const LEVELS = ["q0.05", "q0.25", "q0.5", "q0.75", "q0.95"];

// `actions`: look(step), set(name, step, value, whether it is final) and remove(name, step). `show(view)` draws a view:
// {times, past, ahead, before, line, set}, where `times` are those of the past and of the future, `past` values, `ahead`
// quantiles by their names or null, `before` the median without what was set, `line` what is given of each step and
// `set` a Map of the values that were set. `look(step)` says what is there at a step.
export function fan(name, known, actions) {
  const part = template(name, known);
  const chart = part.querySelector("svg");
  const [back, front] = chart.querySelectorAll("g");
  const handle = chart.querySelector(".fan-handle");
  const says = part.querySelector(".fan-says");
  const exact = part.querySelector("input");
  const chosen = part.querySelector(".fan-chosen");
  let view = null, scale = null, at = 0, own = 0, drag = null;

  const after = () => view.times.length - view.past.length;
  const value = (step) => (step < 0 ? view.past[view.past.length + step] : view.line[step] ?? view.ahead?.["q0.5"]?.[step] ?? null);
  const moment = (step) => view.times[view.past.length + step];

  function show(next) {
    if (next) view = next;
    if (!view || !chart.clientWidth) return;
    own = Math.min(own, after() - 1);
    if (!drag) scale = scaled(view, chart.clientWidth);
    chart.setAttribute("viewBox", `0 0 ${scale.width} ${HEIGHT}`);
    back.replaceChildren(...axes(view, scale), ...bands(view, scale), ...lines(view, scale, known));
    chosen.replaceChildren(...[...view.set].sort(([a], [b]) => a - b).map(([step, v]) => chip(step, v)));
    look(at);
  }

  function look(step) {
    if (!view || !scale) return;
    at = Math.max(-view.past.length, Math.min(after() - 1, step));
    if (at >= 0) own = at;
    const here = value(at);
    front.replaceChildren(svg("line", { class: "fan-cursor", x1: scale.x(at), x2: scale.x(at), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    if (at < 0 && here !== null) front.append(svg("circle", { class: "fan-past", cx: scale.x(at), cy: scale.y(here), r: 4 }));
    says.replaceChildren(strong(moment(at)), ` ${words(at)}`);
    const mine = value(own);
    handle.style.display = mine === null ? "none" : "";
    handle.setAttribute("transform", `translate(${scale.x(own)} ${scale.y(mine ?? 0)})`);
    handle.classList.toggle("fan-set", view.set.has(own));
    for (const [key, v] of [["valuemin", Math.min(scale.low, mine)], ["valuemax", Math.max(scale.high, mine)], ["valuenow", mine ?? 0]]) handle.setAttribute(`aria-${key}`, String(v));
    handle.setAttribute("aria-valuetext", `${moment(own)}: ${words(own)}`);
    exact.previousElementSibling.textContent = `Set ${moment(own)} to`;
    if (document.activeElement !== exact) exact.value = view.set.get(own) ?? "";
    exact.placeholder = mine === null ? "" : number(mine);
  }

  function words(step) {
    const here = value(step);
    if (here === null || here === undefined) return "not measured";
    if (step < 0) return number(here);
    if (view.set.has(step)) return `${number(here)}, set by you`;
    if (view.line[step] !== null && known) return number(here);
    if (view.line[step] !== null) return `${number(here)}, between values that you set`;
    const [q5, q25, q50, q75, q95] = LEVELS.map((q) => number(view.ahead[q][step]));
    return `${q50} · 50%: ${q25} to ${q75} · 90%: ${q5} to ${q95}`;
  }

  function chip(step, v) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tiny";
    button.textContent = `${moment(step)}: ${number(v)} ×`;
    button.ariaLabel = `Remove ${number(v)} at ${moment(step)} of ${name}`;
    button.addEventListener("click", () => actions.remove(name, step));
    return button;
  }

  const place = (event) => {
    const box = chart.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const stepAt = (x) => Math.round(scale.step(x));
  // The step of the value that was set near a place, or the one there.
  const meant = ({ x, y }) => [...view.set].find(([step, v]) => Math.hypot(scale.x(step) - x, scale.y(v) - y) < NEAR)?.[0] ?? stepAt(x);

  chart.addEventListener("pointermove", (event) => {
    if (!view || !scale) return;
    const here = place(event);
    if (!drag) {
      if (event.pointerType !== "touch") actions.look(stepAt(here.x));
      return;
    }
    if (!drag.moved && Math.abs(here.y - drag.y) < MOVED) return;
    drag.moved = true;
    actions.set(name, drag.step, scale.round(scale.value(here.y)), false);
  });
  chart.addEventListener("pointerdown", (event) => {
    if (!view || !scale || event.button) return;
    const here = place(event), onHandle = handle.contains(event.target);
    const step = event.pointerType === "touch" && onHandle ? own : meant(here);
    actions.look(step);
    if (step < 0 || (event.pointerType === "touch" && !onHandle)) return; // a finger scrolls, unless it is on the handle
    drag = { step, y: here.y, moved: false };
    chart.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  const end = () => {
    const last = drag;
    drag = null;
    if (last?.moved) actions.set(name, last.step, view.set.get(last.step), true);
  };
  chart.addEventListener("pointerup", end);
  chart.addEventListener("pointercancel", end);
  chart.addEventListener("dblclick", (event) => {
    const step = meant(place(event));
    if (view.set.has(step)) actions.remove(name, step);
  });
  handle.addEventListener("focus", () => actions.look(own));
  handle.addEventListener("keydown", (event) => {
    const sideways = { ArrowLeft: own - 1, ArrowRight: own + 1, Home: 0, End: after() - 1 }[event.key];
    const upwards = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (sideways !== undefined) actions.look(Math.max(0, Math.min(after() - 1, sideways)));
    else if (upwards !== undefined) actions.set(name, own, scale.round(value(own) + upwards * scale.key), true);
    else if (["Delete", "Backspace"].includes(event.key)) actions.remove(name, own);
    else return;
    event.preventDefault();
  });
  exact.addEventListener("change", () => {
    if (exact.value === "") actions.remove(name, own);
    else if (Number.isFinite(exact.valueAsNumber)) actions.set(name, own, exact.valueAsNumber, true);
  });
  new ResizeObserver(() => show()).observe(chart);
  return { part, show, look };
}

function template(name, known) {
  const part = document.createElement("section");
  part.className = "panel fan";
  part.ariaLabel = name;
  const head = document.createElement("h2");
  head.textContent = name;
  if (known) head.append(small(" known in advance"));
  const says = document.createElement("p");
  says.className = "small fan-says";
  const chart = svg("svg", { role: "group", "aria-label": `${name}: the last values and what may come` });
  const handle = svg("g", { class: "fan-handle", role: "slider", tabindex: 0, "aria-label": `${name} at the chosen step`, "aria-orientation": "vertical" });
  handle.append(svg("circle", { class: "fan-reach", r: 20 }), svg("circle", { r: 6 }));
  chart.append(svg("g", {}), svg("g", {}), handle);
  const foot = document.createElement("div");
  foot.className = "row small fan-foot";
  const label = document.createElement("label");
  const exact = document.createElement("input");
  exact.type = "number";
  exact.step = "any";
  label.append(document.createElement("span"), exact);
  const chosen = document.createElement("span");
  chosen.className = "row fan-chosen";
  foot.append(label, chosen);
  part.append(head, says, chart, foot);
  return part;
}

// --------------------------------------------------------------------------- what is drawn

function scaled(view, width) {
  const first = -view.past.length, last = view.times.length - view.past.length - 1;
  const all = [...view.past, ...(view.ahead ? [...view.ahead["q0.05"], ...view.ahead["q0.95"]] : []), ...view.line, ...view.set.values()].filter((v) => v !== null && v !== undefined);
  let [low, high] = all.length ? [least(all), greatest(all)] : [0, 1];
  const room = 0.12 * (high - low) || 0.1 * Math.abs(high) || 1;
  [low, high] = [low - room, high + room];
  const [across, down] = [width - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
  const steps = Math.max(1, last - first);
  const digit = 10 ** Math.floor(Math.log10((high - low) / 100));
  return {
    width, low, high, first, last,
    x: (step) => EDGE.left + ((step - first) / steps) * across,
    y: (v) => EDGE.top + ((high - v) / (high - low)) * down,
    step: (x) => Math.max(first, Math.min(last, first + ((x - EDGE.left) / across) * steps)),
    value: (y) => Math.max(low, Math.min(high, high - ((y - EDGE.top) / down) * (high - low))),
    round: (v) => Number((Math.round(v / digit) * digit).toPrecision(12)),
    key: 2 * digit * Math.max(1, Math.round((high - low) / (80 * digit))),
  };
}

function axes(view, { x, y, low, high, width, first, last }) {
  const out = [];
  for (const v of ticks(low, high, 5)) {
    out.push(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(v), y2: y(v) }));
    out.push(svg("text", { x: EDGE.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v)));
  }
  out.push(svg("line", { class: "fan-now", x1: x(-0.5), x2: x(-0.5), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
  const labels = [[first, "start"], [0, "middle"], [last, "end"]];
  const wide = 7 * view.times[0].length; // pixels of a time, about
  for (const [step, anchor] of labels) {
    const place = x(step);
    if (anchor === "middle" && (place - EDGE.left < 1.6 * wide || width - EDGE.right - place < 1.6 * wide)) continue;
    out.push(svg("text", { x: place, y: HEIGHT - 7, "text-anchor": anchor }, view.times[view.past.length + step]));
  }
  return out;
}

// The fan opens at the last value that is known.
function bands(view, { x, y }) {
  if (!view.ahead) return [];
  const last = view.past.at(-1) ?? null;
  const points = (q) => [...(last === null ? [] : [[-1, last]]), ...view.ahead[q].map((v, step) => [step, v])].map(([step, v]) => `${x(step).toFixed(1)},${y(v).toFixed(1)}`);
  const area = (low, high, name) => svg("polygon", { class: name, points: [...points(high), ...points(low).reverse()].join(" ") });
  return [area("q0.05", "q0.95", "fan-most"), area("q0.25", "q0.75", "fan-half"), svg("polyline", { class: "fan-median", points: points("q0.5").join(" ") })];
}

function lines(view, { x, y }, known) {
  const path = (values, from, name) => svg("path", { class: name, d: pieces(values).map((piece) => `M${piece.map(([i, v]) => `${x(from + i).toFixed(1)} ${y(v).toFixed(1)}`).join("L")}`).join("") });
  const out = [path(view.past, -view.past.length, "fan-past")];
  if (view.before) out.push(path(view.before, 0, "fan-before"));
  out.push(path(view.line, 0, known ? "fan-past" : "fan-set"));
  for (const [step, v] of view.set) out.push(svg("circle", { class: "fan-set", cx: x(step), cy: y(v), r: 5 }));
  return out;
}

// Values with their places, one list for each piece without gaps.
function pieces(values) {
  const out = [[]];
  values.forEach((v, i) => {
    if (v !== null && v !== undefined) out.at(-1).push([i, v]);
    else if (out.at(-1).length) out.push([]);
  });
  return out.filter((piece) => piece.length);
}

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, v] of Object.entries(attributes)) made.setAttribute(key, v);
  if (text !== undefined) made.textContent = text;
  return made;
}

function strong(text) {
  const part = document.createElement("strong");
  part.textContent = text;
  return part;
}

function small(text) {
  const part = document.createElement("span");
  part.className = "small soft";
  part.textContent = text;
  return part;
}

// Round numbers from low to high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const each = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / each); k * each <= high; k++) found.push(k * each);
  return found;
}

const least = (values) => values.reduce((a, b) => Math.min(a, b));
const greatest = (values) => values.reduce((a, b) => Math.max(a, b));
const number = (v) => (v || 0).toLocaleString("en", { maximumSignificantDigits: 4 }); // -0 is 0
