// Curves of training: losses by step, as lines whose colours are those of the page.

const HEIGHT = 260;
const EDGE = { left: 52, right: 14, top: 12, bottom: 26 };
const FEW = 40; // measured points that are marked one by one

export function curves(element) {
  let shown = element.dataset.curves;
  const draw = () => paint(element, shown);
  draw();
  element.addEventListener("htmx:sseBeforeMessage", (event) => {
    shown = event.detail.data;
    draw();
  });
  new ResizeObserver(draw).observe(element);
}

function paint(element, text) {
  let { step, ...lines } = JSON.parse(text || "{}");
  const log = "log" in element.dataset, scale = (v) => (log ? 10 ** v : v);
  if (log && step) [step, lines] = logarithms(step, lines);
  const names = Object.keys(lines);
  const values = names.flatMap((name) => lines[name]).filter((y) => y !== null);
  if (!step || new Set(step).size < 2 || !values.length || !element.clientWidth) return;
  const width = element.clientWidth;
  const [xs, ys] = [ticks(Math.min(...step), Math.max(...step), width / 90), ticks(Math.min(...values), Math.max(...values), 5)];
  const [x0, x1] = [Math.min(...step), Math.max(...step)];
  const [y0, y1] = [Math.min(ys[0], ...values), Math.max(ys[ys.length - 1], ...values)];
  const x = (v) => EDGE.left + ((v - x0) / (x1 - x0)) * (width - EDGE.left - EDGE.right);
  const y = (v) => HEIGHT - EDGE.bottom - ((v - y0) / (y1 - y0 || 1)) * (HEIGHT - EDGE.top - EDGE.bottom);

  const chart = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": described(names, lines, scale) });
  for (const v of ys) {
    chart.append(svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(v), y2: y(v) }));
    chart.append(svg("text", { x: EDGE.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(scale(v))));
  }
  for (const v of xs) chart.append(svg("text", { x: x(v), y: HEIGHT - 6, "text-anchor": "middle" }, number(scale(v))));
  names.forEach((name, i) => {
    const points = step.map((s, k) => [s, lines[name][k]]).filter(([, v]) => v !== null);
    const path = points.map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
    chart.append(svg("polyline", { class: `line line-${(i % 4) + 1}`, points: path }));
    if (points.length <= FEW && i > 0) {
      for (const [s, v] of points) chart.append(svg("circle", { class: `dot line-${(i % 4) + 1}`, cx: x(s), cy: y(v), r: 3.5 }));
    }
  });
  element.replaceChildren(chart, legend(names, lines, scale));
}

// Both axes, from 12 decades below the greatest value on; places at 0 have none.
function logarithms(step, lines) {
  const least = Math.max(...Object.values(lines).flat()) * 1e-12 || 1e-12;
  const there = step.map((s) => s > 0);
  const of = (values) => values.filter((_, k) => there[k]).map((v) => Math.log10(Math.max(v, least)));
  return [of(step), Object.fromEntries(Object.entries(lines).map(([name, values]) => [name, of(values)]))];
}

function legend(names, lines, scale) {
  const list = document.createElement("ul");
  list.className = "legend small soft";
  names.forEach((name, i) => {
    const item = document.createElement("li");
    item.className = `line-${(i % 4) + 1}`;
    item.textContent = `${name} ${number(scale(last(lines[name])))}`;
    list.append(item);
  });
  return list;
}

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Round numbers from low to high, about `count` of them.
function ticks(low, high, count) {
  const rough = (high - low || Math.abs(high) || 1) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const each = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / each); k * each <= high + each * 1e-9; k++) found.push(k * each);
  return found.length ? found : [low];
}

const last = (values) => values.findLast((v) => v !== null);
const number = (v) => v && Math.abs(v) < 1e-3 ? v.toExponential(0) : (v || 0).toLocaleString("en", { maximumSignificantDigits: 4 }); // -0 is 0

function described(names, lines, scale) {
  return names.map((name) => `${name}: from ${number(scale(lines[name].find((v) => v !== null)))} to ${number(scale(last(lines[name])))}`).join("; ");
}
