"""Clients that are slow, idle, many, or do not speak HTTP; and the end of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from select import select
from subprocess import PIPE

import httpx
import pytest

from afresh.faces.http import guard
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.connection import Connection
from tests.faces.http.conftest import serving
from tests.faces.http.test_texts import never_ends
from tests.warm import Warm


@contextmanager
def connected(address: str, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0)) as sock:
        yield sock


WHOLE = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"


def answered(sock: socket.socket) -> bool:
    """Whether /health answers, on a connection that is kept."""
    sock.sendall(WHOLE)
    content = b""
    while b'"ok"' not in content and (part := sock.recv(65536)):
        content += part
    return b'"ok"' in content


def read(sock: socket.socket) -> tuple[int, dict[str, str | None]]:
    """The status and the error of an answer after which the connection is closed."""
    content = b""
    while part := sock.recv(65536):
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize("before", [False, True], ids=["first", "second"])
def test_a_head_that_does_not_end_is_not_waited_for(
    address: str, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """However steadily its bytes arrive: the client goes on until there is an answer."""
    monkeypatch.setattr(Connection, "head_seconds", 1.0)
    with connected(address) as sock:
        assert not before or answered(sock)
        sock.sendall(b"GET / HTTP/1.1\r\nx: ")
        while not select([sock], [], [], 0.05)[0]:
            sock.sendall(b"y")
        status, error = read(sock)
    assert status == 408 and "did not arrive within 1 seconds" in str(error["message"])


def test_who_asks_nothing_is_disconnected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_seconds", 0.2)
    with connected(address) as sock:
        assert sock.recv(10) == b""


def test_a_body_that_does_not_end_is_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    head = "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 99"
    with connected(address) as sock:
        sock.sendall(f"{head}\r\nconnection: close\r\n\r\n{{".encode())
        status, error = read(sock)
    assert status == 408 and "body did not arrive" in str(error["message"])


def test_more_connections_than_the_server_takes_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "most", 20)
    idle = [socket.create_connection(address.removeprefix("http://").split(":")) for _ in range(20)]  # type: ignore[arg-type]
    with connected(address) as sock:
        status, error = read(sock)
    assert status == 503 and error["type"] == "overloaded_error"
    for sock in idle:
        sock.close()
    until = time.monotonic() + 120
    while True:
        try:
            assert httpx.get(f"{address}/health").status_code == 200
            break
        except (httpx.TransportError, AssertionError):
            assert time.monotonic() < until
            time.sleep(0.05)


HALF_BODY = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"


@pytest.mark.parametrize("half", [b"", b"GET /health HTTP/1.1\r\nx: ", HALF_BODY], ids=["nothing", "head", "body"])
def test_one_address_does_not_hold_every_connection(runs: Path, monkeypatch: pytest.MonkeyPatch, half: bytes) -> None:
    """Requests that have not arrived as a whole: others are served, and so is the address after it closed one."""
    monkeypatch.setattr(Connection, "most", 60)
    monkeypatch.setattr(Connection, "most_unfinished", 30)
    server = serving(ServeSettings([runs], memory=2**30))
    address = next(server)
    with ExitStack() as stack:
        held = [stack.enter_context(connected(address, "127.0.0.2")) for _ in range(30)]
        for sock in held:
            sock.sendall(half)
        with connected(address) as other:
            assert answered(other)
        status, error = read(stack.enter_context(connected(address, "127.0.0.2")))
        assert status == 429 and "127.0.0.2 has 30 connections" in str(error["message"])
        for sock in held:
            sock.close()
    next(server, None)


def test_a_connection_that_was_kept_makes_room_for_a_new_one(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "most", 20)
    server = serving(ServeSettings([runs], memory=2**30))
    address = next(server)
    with ExitStack() as stack:
        for _ in range(60):
            assert answered(stack.enter_context(connected(address)))
    next(server, None)


@pytest.mark.parametrize(
    "content", [b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nx: \0\r\n\r\n"]
)
def test_what_is_not_http_is_refused(address: str, content: bytes) -> None:
    with connected(address) as sock:
        sock.sendall(content + b"\r\n\r\n")
        status, error = read(sock)
    assert status == 400 and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/chat", "chat/../chat", "%00", ""]
)
def test_ids_are_not_paths(address: str, path: str) -> None:
    with connected(address) as sock:
        sock.sendall(f"GET /v1/models/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        status, error = read(sock)
    assert status == 404 and set(error) == {"message", "type", "param", "code"}


def test_ids_of_requests_are_words(http: httpx.Client) -> None:
    for given in ("a\tb", "\xe9", "x" * 200):
        answer = http.get("/health", headers={"x-request-id": given.encode("latin-1")})
        assert len(answer.headers["x-request-id"]) == 16


def test_the_server_ends_when_all_is_answered(runs: Path, warm: Warm) -> None:
    process = warm.start("-m", "afresh", "serve", runs, "--port", 0, stderr=PIPE)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "serving at" in line)
        address = line.split("serving at ")[1].split(";")[0]
        asked = {"model": "stories", "prompt": "Once", "max_tokens": 2000, "stream": True}
        with (
            httpx.Client(base_url=address, timeout=120) as client,
            client.stream("POST", "/v1/completions", json={**asked, "logit_bias": never_ends(runs)}) as answer,
        ):
            lines = answer.iter_lines()
            assert answer.status_code == 200 and next(lines).startswith("data: {")
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 30
            while True:  # new requests are refused meanwhile
                try:
                    httpx.get(f"{address}/health")
                except httpx.TransportError:
                    break
                assert time.monotonic() < until
            events = [line.removeprefix("data: ") for line in lines if line]
        assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert process.wait(60) == 0, process.stderr.read()
        with pytest.raises(ProcessLookupError):  # nothing that it started is left
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            process.kill()
