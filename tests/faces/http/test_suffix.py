"""OpenAI's completions between a prompt and a suffix."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

BEFORE, AFTER = "def add(a, b):\n    total", "\n    return total"
ASKED = {"model": "code", "prompt": BEFORE, "suffix": AFTER, "max_tokens": 12, "seed": 3}


def complete(writers: httpx.Client, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = writers.post("/v1/completions", json={**ASKED, **more}).raise_for_status().json()
    return made


@pytest.mark.parametrize(
    "more",
    [
        {"top_k": 1},
        {"top_p": 0.01},
        {"min_p": 1.0},
        {"temperature": 0},
        {"afresh": {"settings": {"top_k": 1}}},
    ],
)
def test_settings_are_followed(writers: httpx.Client, more: dict[str, Any]) -> None:
    likeliest = complete(writers, temperature=0, n=2)["choices"]
    assert [c["text"] for c in complete(writers, **more, n=2)["choices"]] == [c["text"] for c in likeliest]
    assert len({c["text"] for c in complete(writers, n=2)["choices"]}) == 2


def test_biases_and_penalties_are_followed(writers: httpx.Client) -> None:
    forced = complete(writers, logit_bias={"20": 100}, max_tokens=4)["choices"][0]["text"]
    assert len(set(forced)) == 1
    often = complete(writers, temperature=0, max_tokens=40)["choices"][0]["text"]
    seldom = complete(writers, temperature=0, max_tokens=40, frequency_penalty=2)["choices"][0]["text"]
    assert seldom != often


def test_a_text_matches_what_it_must(writers: httpx.Client) -> None:
    made = complete(writers, afresh={"regex": " = [ab] [+] [0-9]{3}"})["choices"][0]
    assert re.fullmatch(r" = [ab] [+] [0-9]{3}", made["text"]) and made["finish_reason"] == "stop"
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(complete(writers, response_format=form, max_tokens=60)["choices"][0]["text"])["a"] in (1, 2)


def test_every_token_that_is_drawn_counts(writers: httpx.Client) -> None:
    whole = complete(writers, n=2, afresh={"regex": "[0-9]{12}"})
    assert whole["usage"]["completion_tokens"] == 24
    lines = writers.post(
        "/v1/completions", json={**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    ).text.split("\n")
    assert json.loads(lines[-5][6:])["usage"] == complete(writers)["usage"]


REFUSED = {
    "label": ({"afresh": {"label": "x"}}, "trained without labels"),
    "number": ({"afresh": {"number": {"x": 1}}}, "No number named"),
    "caption": ({"afresh": {"caption": "x"}}, "trained without captions"),
    "settings": ({"afresh": {"settings": {"steps": 3}}}, "does not know steps"),
    "a length twice": ({"afresh": {"settings": {"length": 3}}}, "leave `length` out"),
    "negative": ({"afresh": {"negative_label": "x"}}, "trained without labels"),
    "echo": ({"echo": True}, "Leave out echo and logprobs"),
    "logprobs": ({"logprobs": 1}, "Leave out echo and logprobs"),
    "a model that does not see it": ({"model": "stories"}, "trained without fill-in-the-middle"),
    "a conversation": ({"model": "chat", "suffix": ""}, "makes conversations"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_is_refused(writers: httpx.Client, name: str, stream: bool) -> None:
    change, message = REFUSED[name]
    answer = writers.post("/v1/completions", json={**ASKED, "stream": stream, **change})
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


def test_a_completion_has_half_of_the_context_at_most(writers: httpx.Client) -> None:
    made = complete(writers, max_tokens=128_000, afresh={"regex": "[0-9]{64,}"})
    assert made["usage"]["completion_tokens"] == 64 and made["choices"][0]["finish_reason"] == "length"
