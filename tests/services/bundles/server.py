"""A server on this machine that answers as it is told: whole files, parts of them, redirects, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Site:
    """`files` by path. `statuses`: answers to give first, by path. `redirects` by path. `cut`: bytes after which an
    answer ends, by path, each once. `headers`: further ones. `ranges`: whether parts are sent. `asked`: the requests,
    each a path with its query and the range that was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: dict[str, list[int]] = field(default_factory=dict)
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    ranges: bool = True
    pause: float = 0.0
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            site.asked.append((self.path, self.headers.get("Range", "")))
            time.sleep(site.pause)
            if site.statuses.get(path):
                return self.answer(site.statuses[path].pop(0), b"")
            if path in site.redirects:
                return self.answer(302, b"", {"Location": site.redirects[path]})
            if path not in site.files:
                return self.answer(404, b"no")
            content, tag = site.files[path], f'"{hash(site.files[path])}"'
            more = {"ETag": tag, **site.headers.get(path, {})}
            first = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if site.ranges else 0
            if not first or self.headers.get("If-Range") != more["ETag"]:
                return self.answer(200, content, more, path)
            if first >= len(content):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            more["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            return self.answer(206, content[first:], more, path)

        def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, path: str = "") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if site.cut.get(path):
                self.wfile.write(body[: site.cut[path].pop(0)])
                self.close_connection = True
                return
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
