"""A store that does not answer is given up, with what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from afresh.core import UserError
from afresh.storage import object_store
from afresh.storage.object_store import ObjectStore, files_at


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
