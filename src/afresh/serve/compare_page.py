"""The server of the page on which a person chooses between two images or sounds, for this machine only.

The server listens on 127.0.0.1. Its address contains a secret token, and every request must have the token and be
addressed to this machine, so that other pages and other users who reach the port can neither see items nor vote.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from afresh.alignment.feedback.preferences import Winner
from afresh.core import UserError
from afresh.core.visible import visible
from afresh.data.audio.views import wav_bytes
from afresh.data.image.kind import png_bytes
from afresh.serve.compare_html import page_html
from afresh.tasks.annotate import Question, Session

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1 << 12  # bytes of a request's body
IDLE_SECONDS = 10.0  # seconds that a connection may be idle
ANSWERS: dict[str, Winner | None] = {"a": "a", "b": "b", "tie": "tie", "skip": None}
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; media-src blob:; connect-src 'self'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
}
TYPES = {"image": "image/png", "sound": "audio/wav"}  # of items
SHOWN_AS_THEY_ARE = {"image": ".png", "sound": ".wav"}  # suffixes of items' files
WINNERS = 8  # items that are shown at the end
Reply = tuple[int, dict[str, Any]]


class Page:
    """The state of the server: a session, the pairs that were shown, and their answers. `lock` guards changes.

    `end`: returns the lines to show at the end.
    """

    def __init__(self, session: Session, end: Callable[[], list[str]]) -> None:
        self.session, self.end = session, end
        self.token = secrets.token_urlsafe(24)
        self.lock = threading.Lock()
        self.shown: dict[str, Question] = {}
        self.answers: dict[str, str] = {}
        self.open = ""  # the id of the question that has no answer yet
        self.over = False

    def state(self) -> dict[str, Any]:
        """The open question, or the end. After the last answer of a session, which may still be withdrawn, the server
        waits until the rater has finished (`over`)."""
        question = None if self.over else self.session.next()
        if question is None:
            self.over = self.over or not self.session.can_undo
            end = {"kept": visible(self.session.saved()), "end": self.end(), "winners": self.winners()}
            return {"question": None, "over": self.over, **end}
        if not self.open:
            self.open = secrets.token_hex(8)
            self.shown[self.open] = question
        pair, judged, skipped = question.pair, len(self.session.judged), len(self.session.skipped)
        asked = [visible(text) for text in (pair.label, pair.prompt) if text]
        which = visible(self.session.question)
        counts = f"{judged:,} judged, {self.session.ties:,} of them ties; {skipped:,} skipped"
        where = {"id": self.open, "number": question.number, "of": question.of, "asked": asked}
        return {"question": {**where, "which": which}, "summary": counts, "undo": self.session.can_undo}

    def winners(self) -> list[dict[str, Any]]:
        """The images that were preferred most often, with their number of wins; none of sounds."""
        if self.session.plan.kind.view != "image":
            return []
        found = [(self.content(item), wins) for item, wins in self.session.winners(WINNERS)]
        return [{"png": base64.b64encode(raw).decode(), "wins": wins} for raw, wins in found if raw is not None]

    def answer(self, name: Any, vote: Any) -> Reply:
        """Save an answer to a pair that was shown. If the same answer is sent again because the reply was lost, it is
        not saved twice. The status is 200 if the vote is on disk."""
        if not isinstance(name, str) or name not in self.shown:
            return 409, {"error": "This pair was not shown here, so the vote was not saved. Load the page again."}
        if not isinstance(vote, str) or vote not in ANSWERS:
            return 400, {"error": f"A vote is one of {', '.join(ANSWERS)}."}
        if self.answers.get(name, vote) != vote:
            return 409, {"error": "This pair has already been judged, perhaps in another tab. Load the page again."}
        if name not in self.answers:
            winner = ANSWERS[vote]
            try:
                if winner is None:
                    self.session.skip(self.shown[name])
                else:
                    self.session.vote(self.shown[name], winner)
            except (UserError, OSError) as e:
                return 500, {"error": f"The vote was not saved. {visible(str(e))}"}
            self.answers[name], self.open = vote, ""
        return 200, self.state()

    def undo(self) -> Reply:
        """Withdraw the last answer."""
        try:
            if not self.session.undo():
                return 409, {"error": "There is no vote of this session to undo. Load the page again."}
        except (UserError, OSError) as e:
            return 500, {"error": f"The vote was not withdrawn. {visible(str(e))}"}
        self.open = ""
        return 200, self.state()

    def stop(self) -> Reply:
        self.over = True
        return 200, self.state()

    def file(self, name: str, side: str) -> bytes | None:
        """The PNG or WAV of a pair that was shown; None of another, or when it is gone."""
        question = self.shown.get(name)
        if question is None or side not in ("a", "b"):
            return None
        return self.content(question.a if side == "a" else question.b)

    def content(self, item: str) -> bytes | None:
        """The PNG or WAV of an item; None if its file is gone."""
        kind = self.session.plan.kind
        try:
            if kind.suffix == SHOWN_AS_THEY_ARE[kind.view]:
                return (self.session.path.parent / item).read_bytes()
            preview = self.session.preview(item)
        except (OSError, UserError):
            return None
        if kind.view == "sound":
            return None if preview.sound is None else wav_bytes(preview.sound)
        return None if preview.image is None else png_bytes(preview.image)


class Handler(BaseHTTPRequestHandler):
    """One connection. `page` is set by `make_server`."""

    page: Page
    server: Server
    timeout = IDLE_SECONDS
    server_version, sys_version = "afresh", ""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the person's."""

    def allowed(self, token: str | None) -> bool:
        """Whether the request is by someone who has the token and means this server; refused otherwise."""
        hosts = [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts or (origin and origin not in [f"http://{h}" for h in hosts]):
            self.reply(403, {"error": "This server only accepts requests from this machine."})
        elif not hmac.compare_digest((token or "").encode(), self.page.token.encode()):
            self.reply(403, {"error": "The token is missing or wrong. Open the address that the terminal shows."})
        else:
            return True
        return False

    def do_GET(self) -> None:
        url, view = urlsplit(self.path), self.page.session.plan.kind.view
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if not self.allowed(query.get("token") or self.headers.get("X-Token")):
            return
        if url.path == "/":
            self.send(200, "text/html; charset=utf-8", page_html(view, self.page.token).encode())
        elif url.path == "/state":
            with self.page.lock:
                state = self.page.state()
            self.reply(200, state)
        elif url.path == f"/{view}" and (data := self.page.file(query.get("id", ""), query.get("side", ""))):
            self.send(200, TYPES[view], data)
        else:
            self.reply(404, {"error": "There is no such page or item."})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        fits = length.isascii() and length.isdecimal() and int(length[:9]) <= MAX_BODY_BYTES
        body = self.rfile.read(int(length)) if fits else b""  # read even before a refusal, so that it arrives
        if not self.allowed(self.headers.get("X-Token")):
            return
        if not fits:
            self.reply(413, {"error": f"A vote has at most {MAX_BODY_BYTES:,} bytes."})
            return
        try:
            sent = json.loads(body)
        except (ValueError, RecursionError):
            sent = None
        path = urlsplit(self.path).path
        if path not in ("/vote", "/undo", "/stop") or not isinstance(sent, dict):
            self.reply(400, {"error": 'Post {"id": ..., "vote": ...} to /vote, or {} to /undo or /stop.'})
            return
        with self.page.lock:
            if path == "/vote":
                done = self.page.answer(sent.get("id"), sent.get("vote"))
            else:
                done = self.page.undo() if path == "/undo" else self.page.stop()
        self.reply(*done)

    def reply(self, status: int, value: dict[str, Any]) -> None:
        self.send(status, "application/json", json.dumps(value).encode())
        if self.page.over:  # the reply is complete; shutdown() must be called from another thread
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
        """Ignore connections that the browser has closed."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(page: Page, port: int = 0) -> Server:
    """A listening server, on a free port if `port` is 0. Raises UserError if the port cannot be used."""
    try:
        return Server((HOST, port), type("PageHandler", (Handler,), {"page": page}))
    except OSError as e:
        raise UserError(f"Port {port} cannot be used: {e.strerror or e}. Leave out `port` to use a free one.") from e


def address(server: Server, page: Page) -> str:
    return f"http://{HOST}:{server.server_port}/?token={page.token}"


def serve(session: Session, end: Callable[[], list[str]], port: int, ready: Callable[[str], None]) -> None:
    """Serve the questions of a session until the rater finishes or stops. Calls `ready` with the address.

    Raises UserError if the port cannot be used. No vote is written in part on KeyboardInterrupt.
    """
    page = Page(session, end)
    with make_server(page, port) as server:
        ready(address(server, page))
        try:
            server.serve_forever(poll_interval=0.1)
        finally:
            with page.lock:  # wait for a vote that is being written
                page.over = True
