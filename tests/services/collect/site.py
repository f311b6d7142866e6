"""A web site on the loopback that answers as a test says, well or badly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Handler = BaseHTTPRequestHandler
Reply = Callable[[Handler], None]
LOOPBACK = "127.0.0.0/8,::1/128"


class Site:
    """pages: what is at each path; a path that is not there is answered by 404. asked: the paths in the order of the
    requests, with their headers and times. most: requests that were answered at the same time. answering: the threads
    that answer, none of which the client has the whole answer of."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server = server
        self.pages: dict[str, Reply] = {}
        self.asked: list[tuple[str, Mapping[str, str], float]] = []
        self.answering: set[int] = set()
        self.most = 0
        self.lock = threading.Lock()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server.server_address[1]}{path}"

    def paths(self) -> list[str]:
        """What was asked for, but robots.txt and the like."""
        return [path for path, _, _ in self.asked if path not in ("/robots.txt", "/.well-known/tdmrep.json")]

    def times(self) -> list[float]:
        return [at for _, _, at in self.asked]

    def put(
        self, path: str, content: bytes | str = b"", type: str = "text/plain", status: int = 200, **headers: str
    ) -> None:
        """A page; names of headers have _ for -."""
        raw = content.encode() if isinstance(content, str) else content
        said = {"Content-Type": type, "Content-Length": str(len(raw))} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        self.pages[path] = lambda handler: send(handler, status, said, raw)

    def html(self, path: str, body: str = "", head: str = "", **headers: str) -> None:
        text = f"<!DOCTYPE html><html><head><title>{path}</title>{head}</head><body>{body}</body></html>"
        self.put(path, text, "text/html; charset=utf-8", **headers)

    def redirect(self, path: str, to: str) -> None:
        self.put(path, status=302, Location=to)


def send(handler: Handler, status: int, headers: Mapping[str, str], content: bytes = b"") -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if isinstance(handler, Answers):  # before the client can have the end of the answer and ask for more
        handler.leave()
    handler.end_headers()
    handler.wfile.write(content)


class Answers(Handler):
    """Answers as the pages of a site say."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        site = self.site
        with site.lock:
            site.asked.append((self.path, dict(self.headers), time.monotonic()))
            site.answering.add(threading.get_ident())
            site.most = max(site.most, len(site.answering))
        try:
            site.pages.get(self.path, lambda h: send(h, 404, {"Content-Length": "0"}))(self)
        except OSError:  # the client had enough
            self.close_connection = True
        finally:
            self.leave()

    def leave(self) -> None:
        with self.site.lock:
            self.site.answering.discard(threading.get_ident())

    def log_message(self, *arguments: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None: ...


@contextmanager
def serving() -> Iterator[Site]:
    """A site that is there during the block."""
    server = Server(("127.0.0.1", 0), Handler)
    site = Site(server)
    server.RequestHandlerClass = type("AnswersOfSite", (Answers,), {"site": site})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
