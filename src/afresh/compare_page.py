"""The page on which a person chooses between two pictures, and its server, for this machine alone.

The server listens on 127.0.0.1. Its address has a secret token, and every request must bear it and be addressed to this
machine by name, so that no other page, and nobody else who reaches the port, can see the pictures or vote.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from afresh.compare import Question, Session
from afresh.control.preferences import Winner
from afresh.core import UserError
from afresh.measure.report import visible

HOST = "127.0.0.1"
LONGEST = 1 << 12  # bytes of a request's body
WAIT = 10.0  # seconds that a connection may be idle
ANSWERS: dict[str, Winner | None] = {"a": "a", "b": "b", "tie": "tie", "skip": None}
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}
Reply = tuple[int, dict[str, Any]]


class Page:
    """What the server knows: a session, the pairs that were shown, and their answers. One request at a time changes it.

    `end`: the lines to show when all is asked.
    """

    def __init__(self, session: Session, end: Callable[[], list[str]]) -> None:
        self.session, self.end = session, end
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()
        self.shown: dict[str, Question] = {}
        self.answers: dict[str, str] = {}
        self.open = ""  # the id of the question that waits for its answer
        self.over = False

    def state(self) -> dict[str, Any]:
        """The question that is open, or the end."""
        question = None if self.over else self.session.next()
        if question is None:
            self.over = True
            return {"question": None, "kept": visible(self.session.kept()), "end": self.end()}
        if not self.open:
            self.open = secrets.token_hex(8)
            self.shown[self.open] = question
        pair, judged, skipped = question.pair, len(self.session.judged), len(self.session.skipped)
        asked = [visible(text) for text in (pair.label, pair.prompt) if text]
        counts = f"{judged:,} judged, {self.session.ties:,} of them ties; {skipped:,} skipped"
        where = {"id": self.open, "number": question.number, "of": question.of, "asked": asked}
        return {"question": where, "summary": counts}

    def answer(self, name: Any, said: Any) -> Reply:
        """Keep an answer to a pair that was shown. The same answer sent again, when the reply to it was lost, is not
        kept twice. The status is 200 when it is on the disk."""
        if not isinstance(name, str) or name not in self.shown:
            return 409, {"error": "This pair was not shown here, so the vote was not kept. Load the page again."}
        if not isinstance(said, str) or said not in ANSWERS:
            return 400, {"error": f"A vote is one of {', '.join(ANSWERS)}."}
        if self.answers.get(name, said) != said:
            return 409, {"error": "This pair was judged already, perhaps in another tab. Load the page again."}
        if name not in self.answers:
            winner = ANSWERS[said]
            try:
                if winner is None:
                    self.session.skip(self.shown[name])
                else:
                    self.session.vote(self.shown[name], winner)
            except (UserError, OSError) as e:
                return 500, {"error": f"The vote was not kept. {visible(str(e))}"}
            self.answers[name], self.open = said, ""
        return 200, self.state()

    def stop(self) -> Reply:
        self.over = True
        return 200, self.state()

    def picture(self, name: str, side: str) -> bytes | None:
        """The PNG of a pair that was shown; None of another, or when it is gone."""
        question = self.shown.get(name)
        if question is None or side not in ("a", "b"):
            return None
        try:
            return (self.session.path.parent / (question.a if side == "a" else question.b)).read_bytes()
        except OSError:
            return None


class Handler(BaseHTTPRequestHandler):
    """One connection. `page` is set by `make_server`."""

    page: Page
    server: Server
    timeout = WAIT
    server_version, sys_version = "afresh", ""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the person's."""

    def allowed(self, token: str | None) -> bool:
        """Whether the request is by someone who has the token and means this server; refused otherwise."""
        hosts = [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts or (origin and origin not in [f"http://{h}" for h in hosts]):
            self.reply(403, {"error": "This server answers to this machine alone."})
        elif not hmac.compare_digest((token or "").encode(), self.page.token.encode()):
            self.reply(403, {"error": "The token is missing or wrong. Open the address that the terminal shows."})
        else:
            return True
        return False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if not self.allowed(query.get("token") or self.headers.get("X-Token")):
            return
        if url.path == "/":
            self.send(200, "text/html; charset=utf-8", HTML.replace("TOKEN", self.page.token).encode())
        elif url.path == "/state":
            with self.page.lock:
                state = self.page.state()
            self.reply(200, state)
        elif url.path == "/picture" and (data := self.page.picture(query.get("id", ""), query.get("side", ""))):
            self.send(200, "image/png", data)
        else:
            self.reply(404, {"error": "There is no such thing here."})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        fits = length.isascii() and length.isdecimal() and int(length[:9]) <= LONGEST
        body = self.rfile.read(int(length)) if fits else b""  # also of what is refused, so that the refusal is read
        if not self.allowed(self.headers.get("X-Token")):
            return
        if not fits:
            self.reply(413, {"error": f"A vote has at most {LONGEST:,} bytes."})
            return
        try:
            sent = json.loads(body)
        except (ValueError, RecursionError):
            sent = None
        path = urlsplit(self.path).path
        if path not in ("/vote", "/stop") or not isinstance(sent, dict):
            self.reply(400, {"error": 'Post {"id": ..., "vote": ...} to /vote, or {} to /stop.'})
            return
        with self.page.lock:
            done = self.page.stop() if path == "/stop" else self.page.answer(sent.get("id"), sent.get("vote"))
        self.reply(*done)

    def reply(self, status: int, value: dict[str, Any]) -> None:
        self.send(status, "application/json", json.dumps(value).encode())
        if self.page.over:  # the last words are on their way; from this thread the server cannot wait for itself
            threading.Thread(target=self.server.shutdown, daemon=True).start()

    def send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no fault of this program's."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(page: Page, port: int = 0) -> Server:
    """A server that listens, on a free port when `port` is 0. Raises UserError when the port cannot be had."""
    try:
        return Server((HOST, port), type("PageHandler", (Handler,), {"page": page}))
    except OSError as e:
        raise UserError(
            f"Port {port} cannot be had: {e.strerror or e}. Leave --port out, and a free one is taken."
        ) from e


def address(server: Server, page: Page) -> str:
    return f"http://{HOST}:{server.server_port}/?token={page.token}"


def serve(session: Session, end: Callable[[], list[str]], port: int, say: Callable[[str], None]) -> None:
    """Ask a session's questions on a page, until all are answered or the person stops. Says where the page is.

    Raises UserError when the port cannot be had. After KeyboardInterrupt no vote is half written.
    """
    page = Page(session, end)
    with make_server(page, port) as server:
        say(f"open {address(server, page)}")
        try:
            server.serve_forever(poll_interval=0.1)
        finally:
            with page.lock:  # a vote that is being written is written
                page.over = True


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
main { flex: 1; display: flex; flex-direction: column; justify-content: center; gap: .8rem; }
#pair { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; }
button { font: inherit; color: inherit; background: var(--sheet); border: 1px solid var(--rule); border-radius: .5rem;
  padding: .6rem .9rem; cursor: pointer; touch-action: manipulation; }
button:hover:enabled, button:focus-visible { border-color: var(--accent); }
button:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
button:disabled { opacity: .45; cursor: default; }
.side { display: flex; flex-direction: column; align-items: center; justify-content: space-between; gap: .5rem;
  padding: .6rem; min-width: 0; }
.side img { display: block; max-width: 100%; image-rendering: pixelated; }
.others { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: .6rem; }
kbd { font: .85em ui-monospace, Menlo, Consolas, monospace; color: var(--quiet); }
@media (hover: none) { kbd { display: none; } }
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
    <div id="pair">
      <button class="side" data-vote="a"><img alt="picture A"><span>A <kbd>&larr; or a</kbd></span></button>
      <button class="side" data-vote="b"><img alt="picture B"><span>B <kbd>&rarr; or b</kbd></span></button>
    </div>
    <p></p>
    <div class="others">
      <button data-vote="tie">tie <kbd>t</kbd></button>
      <button data-vote="skip">skip <kbd>s</kbd></button>
      <button data-vote="stop">stop <kbd>q</kbd></button>
    </div>
  </div>
  <div id="end" hidden></div>
</main>
<footer id="summary" aria-live="polite"></footer>
<script>
"use strict";
const token = "TOKEN", keys = {ArrowLeft: "a", ArrowRight: "b", a: "a", b: "b", t: "tie", s: "skip", q: "stop"};
const $ = id => document.getElementById(id), images = [...document.querySelectorAll(".side img")];
const buttons = [...document.querySelectorAll("[data-vote]")];
let now = null, ready = false, last = null;

function enable(on) { ready = on; buttons.forEach(b => { b.disabled = !on; }); }

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
      "address; every vote that it confirmed is kept.");
  }
  if (!reply.ok) throw new Error(value.error);
  return value;
}

function fit() {  // the largest whole factor, so that every pixel is a square of the same size
  const room = Math.min($("pair").clientWidth / 2 - 36, window.innerHeight * 0.62);
  for (const i of images) if (i.naturalWidth) {
    const factor = room / Math.max(i.naturalWidth, i.naturalHeight);
    i.style.width = i.naturalWidth * (factor > 1 ? Math.floor(factor) : factor) + "px";
  }
}

async function show(state) {
  $("error").hidden = true; now = state.question; last = null;
  $("choice").hidden = !now; $("end").hidden = !!now;
  if (!now) {
    enable(false); $("progress").textContent = "Done"; $("asked").textContent = ""; $("summary").textContent = "";
    $("bar").hidden = true;
    $("end").replaceChildren(...[state.kept, ...state.end, "This page can be closed."].map(line => {
      const p = document.createElement("p"); p.textContent = line; return p; }));
    return;
  }
  enable(false);
  $("progress").textContent = `${now.number} of ${now.of}`; $("asked").textContent = now.asked.join("\\n");
  $("bar").firstChild.style.width = 100 * (now.number - 1) / now.of + "%"; $("summary").textContent = state.summary;
  images.forEach((image, i) => { image.src = `/picture?token=${token}&id=${now.id}&side=${"ab"[i]}`; });
  try { await Promise.all(images.map(i => i.decode())); }
  catch (e) { fail("A picture cannot be shown.", () => show(state)); return; }
  fit(); enable(true);  // only what was seen is judged
}

async function send(work) {
  enable(false);
  let state;
  try { state = await work(); }
  catch (e) { fail(e.message, () => send(work)); return; }
  await show(state);
}

function vote(said) {
  if (!ready) return;
  const id = now.id;
  send(() => said === "stop" ? call("/stop", {}) : call("/vote", {id, vote: said}));
}

buttons.forEach(b => b.addEventListener("click", () => vote(b.dataset.vote)));
$("again").addEventListener("click", () => { if (last) last(); });
window.addEventListener("resize", fit);
document.addEventListener("keydown", e => {
  if (e.key === " " && e.target.id !== "again") e.preventDefault();
  if (e.repeat || e.ctrlKey || e.metaKey || e.altKey) return;
  const said = keys[e.key.length === 1 ? e.key.toLowerCase() : e.key];
  if (said) { e.preventDefault(); vote(said); }
});
document.addEventListener("keyup", e => { if (e.key === " " && e.target.id !== "again") e.preventDefault(); });
send(() => call("/state"));
</script>
</body>
</html>
"""
