"""A model that fails, a server that is busy: what clients see of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.engine.sampling.tokens import Decoding
from afresh.faces.http.app import ServeSettings
from tests import needs
from tests.faces.http.conftest import serving
from tests.faces.http.test_texts import ASK, never_ends

openai = needs.package("openai", "openai")


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose fifth step raises an error."""
    step, count = Decoding.step, iter(range(1000))

    def failing(self: Decoding) -> Any:
        if next(count) == 5:
            raise RuntimeError("the weights melted")
        return step(self)

    monkeypatch.setattr(Decoding, "step", failing)


STREAMS = {
    "/v1/completions": {"model": "stories", "prompt": "Once", "max_tokens": 200},
    "/v1/chat/completions": {"model": "chat", "messages": ASK, "max_tokens": 60},
    "/v1/responses": {"model": "chat", "input": "Say 3?", "max_output_tokens": 60},
    "/v1/messages": {"model": "chat", "messages": ASK, "max_tokens": 60},
}


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.usefixtures("fails")
def test_a_failure_is_an_answer_or_an_event_and_harms_nobody_else(
    http: httpx.Client, path: str, stream: bool, runs: Path
) -> None:
    asked = {**STREAMS[path], "seed": 1, "stream": stream, "afresh": {"regex": "(Say |cat ){10}"}}
    answer = http.post(path, json=asked)
    if answer.status_code == 200:
        events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: {")]
        last = json.loads(events[-2 if path == "/v1/responses" else -1])
        error = last["response"]["error"] if path == "/v1/responses" and "response" in last else last.get("error", last)
    else:
        assert answer.status_code == 500 and "x-request-id" in answer.headers
        error = answer.json()["error"]
    assert "its log says why" in error["message"] and "melted" not in answer.text
    assert http.post(path, json=asked).status_code == 200


def test_the_retries_of_the_client_survive_a_busy_server(runs: Path) -> None:
    server = serving(ServeSettings([runs], memory=2**30, most_requests=1))
    address, seen = next(server), []
    asked = {"model": "stories", "prompt": "Once", "max_tokens": 16_000, "stream": True}

    def saw(response: httpx.Response) -> None:
        seen.append(response.status_code)
        long.__exit__(None, None, None)  # the other client goes away

    with httpx.Client(base_url=address, timeout=60) as other:
        long = other.stream("POST", "/v1/completions", json={**asked, "logit_bias": never_ends(runs)})
        lines = long.__enter__().iter_lines()  # as long as this is kept, the answer is read
        next(lines)
        own = httpx.Client(event_hooks={"response": [saw]})
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", http_client=own) as client:
            made = client.completions.create(model="stories", prompt="Once", max_tokens=2)
    assert made.choices[0].finish_reason and seen[0] == 429 and seen[-1] == 200
    next(server, None)
