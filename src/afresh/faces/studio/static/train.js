// The pages on which a model learns: files that are dropped are sent in pieces, minutes have words, a page whose
// command has ended is shown anew.

import { curves } from "./curves.js";
import { onceBack } from "./server.js";

const PIECE = 8 * 2 ** 20; // bytes of a request
const TOGETHER = 200; // files of a request
const AGAIN = 3000; // milliseconds after which a place for a command is asked for again

const drop = document.getElementById("drop");
if (drop) receive(drop);
for (const element of document.querySelectorAll("[data-curves]")) curves(element);
for (const live of document.querySelectorAll("[data-live]")) {
  live.addEventListener("htmx:sseClose", (event) => {
    if (event.detail.type === "message") location.reload();
  });
}
const minutes = document.getElementById("minutes");
if (minutes) {
  const words = document.getElementById("minutes-words");
  const show = () => { words.textContent = spoken(Number(minutes.value)); };
  minutes.addEventListener("input", show);
  show();
}

function spoken(n) {
  const length = n <= 2 ? "a first look" : n <= 12 ? "a cup of coffee" : n <= 35 ? "a walk" : "a long lunch";
  return `${n} minute${n === 1 ? "" : "s"} · ${length}`;
}

function receive(form) {
  const alert = form.querySelector("[role=alert]");
  const sending = form.querySelector(".sending");
  let cancelled = false;

  const send = async (gather) => {
    cancelled = false;
    alert.hidden = true;
    form.classList.add("busy");
    sending.hidden = false;
    try {
      const { files, hidden } = visible(await gather());
      if (!files.length) throw new Error("There is no file in it. Drop files, or a folder that holds some.");
      const next = await untilSent(form, files, hidden, () => cancelled);
      if (next) location.assign(next);
      else rest();
    } catch (error) {
      rest();
      alert.textContent = error.message;
      alert.hidden = false;
    }
  };
  const rest = () => {
    form.classList.remove("busy");
    sending.hidden = true;
  };

  form.querySelector("[data-cancel]").addEventListener("click", () => { cancelled = true; });
  for (const button of form.querySelectorAll("[data-choose]")) {
    const input = document.getElementById(button.dataset.choose);
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const chosen = [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
      input.value = "";
      send(async () => chosen);
    });
  }
  // A file that misses the field would replace the page.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  form.addEventListener("dragenter", () => form.classList.add("over"));
  form.addEventListener("dragleave", (event) => {
    if (!form.contains(event.relatedTarget)) form.classList.remove("over");
  });
  form.addEventListener("drop", (event) => {
    form.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const loose = [...event.dataTransfer.files];
    send(() => (entries.length ? below(entries) : loose.map((file) => ({ file, path: file.name }))));
  });
}

// All files below what was dropped.
async function below(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      found.push({ file, path: entry.fullPath.replace(/^\//, "") });
    } else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((done, failed) => reader.readEntries(done, failed));
        if (!some.length) break;
        found.push(...(await below(some)));
      }
    }
  }
  return found;
}

// Files that systems hide are no data.
function visible(all) {
  const files = all.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
  return { files, hidden: all.length - files.length };
}

// Where the server goes away meanwhile, all is sent again when it is back: what had arrived is forgotten with it.
async function untilSent(form, files, hidden, cancelled) {
  for (;;) {
    try {
      return await sendAll(form, files, hidden, cancelled);
    } catch (error) {
      if (!(error instanceof TypeError) && error.code !== "unknown_upload") throw error;
      await new Promise((done) => onceBack(form, done));
    }
  }
}

// What needs one of the few places for commands, as soon as one is free; null if it was cancelled meanwhile.
async function withRoom(status, cancelled, ask) {
  for (;;) {
    if (cancelled()) return null;
    try {
      return await ask();
    } catch (error) {
      if (error.code !== "too_many_jobs") throw error;
      status.textContent = `${error.message} This goes on by itself then.`;
      await new Promise((done) => setTimeout(done, AGAIN));
    }
  }
}

async function sendAll(form, files, hidden, cancelled) {
  const bar = form.querySelector("progress");
  const status = form.querySelector("[role=status]");
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  const begun = await withRoom(status, cancelled, () => post(form.dataset.files));
  if (!begun) return null;
  const { id } = begun;
  let bytes = 0;
  let count = 0;
  for (const part of pieces(files)) {
    if (cancelled()) return null;
    const body = new FormData();
    for (const { blob, path } of part.files) body.append("file", blob, path);
    await post(`${form.dataset.files}/${id}?offset=${part.offset}`, body);
    bytes += part.bytes;
    count += part.ended;
    bar.value = total ? bytes / total : 1;
    const left = hidden ? `; ${hidden.toLocaleString("en")} hidden ones are left out` : "";
    status.textContent = `${count.toLocaleString("en")} of ${files.length.toLocaleString("en")} files${left}`;
  }
  const end = new FormData();
  end.append("modality", form.elements.modality.value);
  return (await withRoom(status, cancelled, () => post(`${form.dataset.files}/${id}/end`, end)))?.next;
}

// What is sent in each request: several small files, or a piece of a large one.
function* pieces(files) {
  let part = { files: [], bytes: 0, offset: 0, ended: 0 };
  for (const { file, path } of files) {
    if (file.size > PIECE) {
      for (let offset = 0; offset < file.size; offset += PIECE) {
        const blob = file.slice(offset, offset + PIECE);
        yield { files: [{ blob, path }], bytes: blob.size, offset, ended: Number(offset + PIECE >= file.size) };
      }
      continue;
    }
    if (part.files.length >= TOGETHER || part.bytes + file.size > PIECE) {
      yield part;
      part = { files: [], bytes: 0, offset: 0, ended: 0 };
    }
    part.files.push({ blob: file, path });
    part.bytes += file.size;
    part.ended += 1;
  }
  if (part.files.length) yield part;
}

async function post(address, body) {
  const answer = await fetch(address, { method: "POST", body });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(found.error?.message || `The server answered ${answer.status}.`), { code: found.error?.code });
  return found;
}
