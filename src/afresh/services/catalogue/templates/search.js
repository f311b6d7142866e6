// Searching the listings within the page. LISTINGS (listings.js) has the newest first; a row is id, title, kind, price,
// whether it has a thumbnail, excerpt, maker, licence, summary, rank of the price.
"use strict";
const PAGE = 24;
const KINDS = Object.fromEntries([...document.querySelectorAll("#kind option")].map((o) => [o.value, o.text.replace(/s$/, "")]));
const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
const TITLES = LISTINGS.map((row) => plain(row[1]));
const WORDS = LISTINGS.map((row, i) => [TITLES[i], plain(row[6]), plain(row[7]), plain(row[8]), row[0]].join(" "));
const [query, kind, order, cards, more, count] = ["query", "kind", "order", "cards", "more", "count"].map((id) => document.getElementById(id));
let found = [], shown = 0;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text; // never as HTML: titles are written by others
  return made;
}

function card([id, title, key, price, picture, excerpt, maker, licence]) {
  const item = element("li", "card"), face = element("div", "face"), body = element("div", "body");
  if (picture) {
    const image = element("img");
    image.loading = "lazy";
    image.alt = "";
    image.src = `previews/${id}.webp`;
    face.append(image);
  } else if (excerpt) face.append(element("p", "excerpt", excerpt));
  else {
    face.append(element("span", "initial", [...title][0]));
    face.firstChild.setAttribute("aria-hidden", "true");
  }
  const heading = element("h2"), link = element("a", "", title), facts = element("p", "facts"), foot = element("p", "foot");
  link.href = `listings/${id}.html`;
  heading.append(link);
  facts.append(element("span", "badge", KINDS[key]), " ", element("span", "", licence));
  foot.append(element("strong", "", price), " ", element("span", "", maker));
  body.append(heading, facts, foot);
  item.append(face, body);
  return item;
}

// Rows that have every word, those with the words in their title first, and of these those that begin with them.
function matches(text, wanted) {
  const words = plain(text).split(/\s+/).filter(Boolean), groups = [[], [], []];
  for (let i = 0; i < LISTINGS.length; i++) {
    if ((wanted && LISTINGS[i][2] !== wanted) || !words.every((w) => WORDS[i].includes(w))) continue;
    groups[!words.every((w) => TITLES[i].includes(w)) ? 2 : words.length && TITLES[i].startsWith(words[0]) ? 0 : 1].push(i);
  }
  return groups.flat();
}

function show(to) {
  cards.append(...found.slice(shown, to).map((i) => card(LISTINGS[i])));
  shown = Math.min(to, found.length);
  more.hidden = shown === found.length;
}

function search() {
  found = matches(query.value, kind.value);
  if (order.value === "title") found.sort((a, b) => (TITLES[a] < TITLES[b] ? -1 : TITLES[a] > TITLES[b] ? 1 : a - b));
  if (order.value === "cheap") found.sort((a, b) => LISTINGS[a][9] - LISTINGS[b][9] || a - b);
  cards.replaceChildren();
  shown = 0;
  show(PAGE);
  const listings = `${found.length.toLocaleString("en")} listing${found.length === 1 ? "" : "s"}`;
  count.textContent = found.length ? `${listings}${query.value.trim() ? ` for "${query.value.trim()}"` : ""}` : "Nothing has all of these words.";
  const words = new URLSearchParams(Object.entries({ q: query.value, kind: kind.value, order: order.value }).filter(([, v]) => v));
  history.replaceState(null, "", `#${words}`);
}

function restore() {
  const words = new URLSearchParams(location.hash.slice(1));
  query.value = words.get("q") || "";
  kind.value = words.get("kind") || "";
  order.value = words.get("order") || "";
  search();
}

for (const field of [query, kind, order]) field.disabled = false;
query.addEventListener("input", search);
kind.addEventListener("change", search);
order.addEventListener("change", search);
document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => {
  const before = shown;
  show(shown + PAGE);
  cards.children[before]?.querySelector("a").focus();
});
addEventListener("hashchange", restore);
addEventListener("keydown", (event) => {
  const links = [...cards.querySelectorAll("a")], at = links.indexOf(document.activeElement);
  if (event.key === "/" && document.activeElement !== query && !event.ctrlKey && !event.metaKey) query.focus();
  else if (event.key === "Escape" && at >= 0) query.focus();
  else if (event.key === "ArrowDown" && (at >= 0 || document.activeElement === query)) links[at + 1]?.focus();
  else if (event.key === "ArrowUp" && at >= 0) (links[at - 1] || query).focus();
  else return;
  event.preventDefault();
});
restore();
