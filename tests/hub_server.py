"""A small server on loopback that answers as the Hugging Face hub does: lists of files, and the files themselves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Models by name, each a folder. `gated`: names that ask for the token "let-in". `sent`: the files that were sent.
    `broken`: whether it fails at everything."""

    models: dict[str, Path] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    broken: bool = False

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.models[name]
        return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.hub.broken:
            return self.answer(500, b"")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            name, asked = "/".join(parts[2:4]), parts[4:]
            if name not in self.hub.models:
                return self.refuse(401, "RepoNotFound")
            files = self.hub.files(name)
            if asked[:1] == ["tree"]:
                listed = [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                    for k, v in files.items()
                ]
                return self.answer(200, json.dumps(listed).encode())
            about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": k} for k in files]}
            return self.answer(200, json.dumps(about).encode())
        name, file = "/".join(parts[:2]), "/".join(parts[4:])
        if name in self.hub.gated and self.headers.get("Authorization") != "Bearer let-in":
            return self.refuse(403, "GatedRepo")
        found = self.hub.files(name).get(file)
        if found is None:
            return self.refuse(404, "EntryNotFound")
        if self.command == "GET":
            self.hub.sent.append(file)
        return self.answer(200, found, {"ETag": f'"{hashlib.sha1(found).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A hub that huggingface_hub asks in this process, with an empty cache and no account."""
    from huggingface_hub import constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.delenv("HF_TOKEN", raising=False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
