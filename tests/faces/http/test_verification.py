"""What requests compute without a run: one at a time, beside the event loop, at most so many, and ended with their
client."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.native import items, verification
from afresh.faces.http.request_threads import Desk
from afresh.services.provenance.layers import Provenance
from afresh.verbs.verify_works import verify_work
from tests.faces.http.conftest import serving, wait_for_active

MOST = 4


@pytest.fixture
def desk() -> list[Desk]:
    return []


@pytest.fixture
def server(desk: list[Desk], runs: Path) -> Iterator[httpx.Client]:
    """A client of a server that takes MOST requests at once, and its desk."""
    settings = ServeSettings([runs], memory=2**30, most_requests=MOST)
    address = serving(settings, lambda app: desk.append(app.state.desk))
    with httpx.Client(base_url=next(address), timeout=60) as client:
        yield client
    next(address, None)


@pytest.mark.parametrize("path", ["/afresh/v1/verify", "/studio/verify"])
def test_the_server_answers_while_as_many_works_as_it_takes_are_verified(
    server: httpx.Client, desk: list[Desk], path: str
) -> None:
    def ask() -> httpx.Response:
        with httpx.Client(base_url=server.base_url, timeout=60) as client:
            return client.post(path, files={"file": ("a.txt", b"words")})

    gate = threading.Event()
    with ThreadPoolExecutor(MOST) as clients:
        with desk[0].turns.taken(gate, shared=False):  # all others wait
            asked = [clients.submit(ask) for _ in range(MOST)]
            wait_for_active(server, MOST)
            assert server.get("/health").json() == {"status": "ok"}
            refused = ask()
            assert refused.status_code == 429 and f"busy with {MOST} requests" in refused.text
        assert [a.result().status_code for a in asked] == [200] * MOST


def test_a_client_that_goes_away_gives_its_place_back(server: httpx.Client, desk: list[Desk]) -> None:
    with desk[0].turns.taken(threading.Event(), shared=False):
        for _ in range(2 * MOST):
            request = server.build_request("POST", "/afresh/v1/verify", files={"file": ("a.txt", b"words")})
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            with socket.create_connection((server.base_url.host, server.base_url.port or 80)) as client:
                client.sendall(f"POST /afresh/v1/verify HTTP/1.1\r\n{head}\r\n".encode() + request.read())
                wait_for_active(server, 1)
            wait_for_active(server, 0)
    assert server.post("/afresh/v1/verify", files={"file": ("a.txt", b"words")}).status_code == 200


def test_one_file_is_in_memory_at_a_time(server: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now, most = 0, 0

    def counted(*given: Any) -> Provenance:
        nonlocal now, most
        now += 1
        most = max(most, now)
        found = verify_work(*given)
        now -= 1
        return found

    monkeypatch.setattr(verification, "verify_work", counted)
    image = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(image, "PNG")

    def ask(number: int) -> int:
        return httpx.post(
            f"{server.base_url}/afresh/v1/verify", files={"file": ("a.png", image.getvalue())}
        ).status_code

    with ThreadPoolExecutor(MOST) as clients:
        assert list(clients.map(ask, range(2 * MOST)))  # some of which may be refused
    assert most == 1


def test_a_table_to_go_on_from_waits_for_its_turn_too(server: httpx.Client, desk: list[Desk]) -> None:
    table = {"table": ("a.csv", b"time,value\n2020-01-01,1\n")}
    with ThreadPoolExecutor(1) as client:
        with desk[0].turns.taken(threading.Event(), shared=False):
            asked = client.submit(
                lambda: server.post("/studio/forecast/table", data={"run": "stories", "horizon": 2}, files=table)
            )
            wait_for_active(server, 1)
        assert asked.result().status_code == 400, "stories are no series"


def test_a_sound_of_a_high_rate_is_refused_by_its_samples() -> None:
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", 655_350, 2, format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros((655_350, 2), "int16"))
    with pytest.raises(RefusedRequest, match="memory"):
        items.read_sound(content.getvalue(), "image")
