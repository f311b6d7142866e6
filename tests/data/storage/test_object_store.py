"""A store that does not answer is given up, with what to do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.storage import object_store
from afresh.data.storage.object_store import MOST_FILES, ObjectStore, StoredFile, files_at, numbered


class Silent:
    """A server that accepts connections, reads nothing, and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.accepted: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                self.accepted.append(self.socket.accept()[0])
            except OSError:  # it is closed
                return

    def close(self) -> None:
        self.socket.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    server = Silent()
    monkeypatch.setattr(object_store, "SECONDS", 0.2)
    monkeypatch.setattr(object_store, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield server
    server.close()


ADVICE = r"Nothing answered within 0.2 seconds: is the address right.*Try again, or copy the files"


def test_s3_that_never_answers_is_given_up_after_a_few_attempts(silent: Silent) -> None:
    pytest.importorskip("s3fs")
    store = ObjectStore("s3://bucket/runs")
    with pytest.raises(UserError, match=ADVICE) as raised:
        store.read("run.json")
    assert raised.value.code == "store_failed"
    read = len(silent.accepted)
    assert 1 <= read <= 2 * object_store.ATTEMPTS
    with pytest.raises(UserError, match=ADVICE):
        store.write("run.json", b"{}")


def test_an_address_of_the_web_that_never_answers_is_given_up(silent: Silent) -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(UserError, match=ADVICE):
        files_at(f"http://127.0.0.1:{silent.port}/notes.txt")


@pytest.mark.parametrize("head", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
def test_a_file_is_not_read_beyond_its_size(head: str, tmp_path: Path) -> None:
    """The server never ends: only the client can."""
    pytest.importorskip("aiohttp")
    sent = 0

    def pour() -> None:
        nonlocal sent
        with listening.accept()[0] as sock, contextlib.suppress(OSError):
            sock.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
            while True:
                sock.sendall(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                sent += 1 << 16

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=pour)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        store, file = ObjectStore(address), tmp_path / "model.safetensors"
        with pytest.raises(UserError, match="larger than the 1,000 bytes that are known of it"):
            store.fetch(StoredFile(f"{address}/model.safetensors", "model.safetensors", 1_000, ""), file)
        store.files.close_session(store.files.loop, store.files._session)
        thread.join(30)
    assert not thread.is_alive() and sent < 1 << 26
    assert not file.exists() or file.stat().st_size < 1 << 24


def test_an_address_with_numbers_stands_for_each_of_them() -> None:
    assert numbered("s3://b/{08..10}.csv") == ["s3://b/08.csv", "s3://b/09.csv", "s3://b/10.csv"]
    assert numbered("s3://b/{7..7}") == ["s3://b/7"] and len(numbered(f"s3://b/{{1..{MOST_FILES}}}")) == MOST_FILES
    for wrong in ("{2..1}", f"{{0..{MOST_FILES}}}"):
        with pytest.raises(UserError, match="or too many"):
            numbered(f"s3://b/{wrong}")


def test_a_file_without_a_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **more: {"name": path, "type": "file"})
    with pytest.raises(UserError, match="does not say how many bytes a has"):
        files_at("memory://bucket/a")
