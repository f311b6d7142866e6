"""Answers to requests that are drawn at random have the form of OpenAI's client, whatever they ask."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import httpx

from tests import needs
from tests.faces.http.drawn_requests import drawn
from tests.faces.http.published import of_client, of_file, verdict

needs.package("openai", "openai")
REQUESTS = 150


def test_every_answer_has_its_published_form(everything: str) -> None:
    check, draw, seen = of_client(), random.Random(1), Counter[int]()
    with httpx.Client(base_url=everything, timeout=60) as client:
        for _ in range(REQUESTS):
            request = drawn(draw)
            answer = client.request(request.method, request.path, **request.arguments)
            found = verdict(check, request.path, answer)
            assert not found.faults, (request, found.faults)
            seen[answer.status_code] += 1
    assert seen[200] > REQUESTS / 2 and sum(seen.values()) - seen[200] > REQUESTS / 10, seen


SCHEMAS = {
    "ErrorResponse": {"type": "object", "required": ["error"]},
    "CreateCompletionResponse": {
        "required": ["choices"],
        "properties": {"choices": {"type": "array", "items": {"required": ["text", "finish_reason"]}}},
    },
    "ResponseStreamEvent": {
        "anyOf": [{"$ref": "#/components/schemas/Delta"}, {"$ref": "#/components/schemas/Done"}],
    },
    "Delta": {"properties": {"type": {"enum": ["delta"]}, "delta": {"type": "string", "nullable": True}}},
    "Done": {"required": ["text"], "properties": {"type": {"enum": ["response.completed"]}}},
}


def answer_of(text: str, kind: str = "application/json", status: int = 200) -> httpx.Response:
    return httpx.Response(status, text=text, headers={"content-type": kind})


def stream_of(*events: dict[str, object]) -> httpx.Response:
    text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
    return answer_of(text, "text/event-stream")


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    """With schemas of a file, as OpenAI publishes one."""
    (tmp_path / "openapi.yaml").write_text(json.dumps({"components": {"schemas": SCHEMAS}}))  # JSON is YAML
    check = of_file(tmp_path / "openapi.yaml")

    def faults(path: str, answer: httpx.Response) -> list[str]:
        return verdict(check, path, answer).faults

    done = {"type": "response.completed", "text": "", "sequence_number": 1}
    delta = {"type": "delta", "delta": None, "sequence_number": 0}
    assert faults("/v1/responses", stream_of(delta, done)) == []
    assert "numbered in turn" in faults("/v1/responses", stream_of(done))[0]
    assert faults("/v1/responses", stream_of(delta)) == ["a stream without its last event"]
    assert "Delta.delta: 3 is not" in faults("/v1/responses", stream_of(delta | {"delta": 3}, done))[0]
    assert "no event of type 'other'" in faults("/v1/responses", stream_of(delta | {"type": "other"}, done))[0]
    assert "finish_reason" in faults("/v1/completions", answer_of('{"choices": [{"text": ""}]}'))[0]
    assert faults("/v1/completions", answer_of('{"choices": []}')) == []
    assert "'error' is a required property" in faults("/v1/completions", answer_of("{}", status=400))[0]
    assert faults("/v1/completions", answer_of("{}", status=500)) == ["status 500: {}"]
    assert "content-type" in faults("/v1/completions", answer_of("no", "text/plain", 404))[0]
    assert "[DONE]" in faults("/v1/completions", answer_of("", "text/event-stream"))[0]
    assert "no sound" in faults("/v1/audio/speech", answer_of("", "audio/wav"))[0]
