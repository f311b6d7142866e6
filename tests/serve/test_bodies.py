"""Bodies that are no requests: each is answered at once, with an error of the right form."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from afresh.serve.anthropic.answers import MessageAnswer
from afresh.serve.openai.answers import ChatAnswer, CompletionAnswer, ResponseAnswer

PATHS = {
    "/v1/completions": {"model": "stories", "prompt": "Once", "max_tokens": 2},
    "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/responses": {"model": "chat", "input": "Hi", "max_output_tokens": 2},
    "/v1/messages": {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
}
ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/completions": CompletionAnswer,
    "/v1/chat/completions": ChatAnswer,
    "/v1/responses": ResponseAnswer,
    "/v1/messages": MessageAnswer,
}
HALF = "\ud800"


@pytest.mark.parametrize("path", PATHS)
def test_answers_are_those_of_the_description(http: httpx.Client, path: str) -> None:
    ANSWERS[path].model_validate(http.post(path, json=PATHS[path]).raise_for_status().json(), strict=True)


def check(answer: httpx.Response, path: str, begun: float) -> None:
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert time.monotonic() - begun < 10
    names = {"type", "message"} if path == "/v1/messages" else {"message", "type", "param", "code"}
    assert set(answer.json()["error"]) == names and len(answer.content) < 3000


def send(http: httpx.Client, path: str, content: str | bytes, kind: str = "application/json") -> None:
    begun = time.monotonic()
    check(http.post(path, content=content, headers={"content-type": kind}), path, begun)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_json(http: httpx.Client, path: str) -> None:
    whole = json.dumps(PATHS[path])
    texts = [
        "",
        "null",
        "[]",
        "1",
        whole[:-1],
        whole + whole,
        whole.replace("2", "9" * 5000),
        whole.replace("2}", '2, "seed": 1, "seed": 1}'),
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        whole.replace("2}", '2, "tools": ' + "[" * 500 + "]" * 500 + "}"),
    ]
    for text in texts:
        send(http, path, text)
    send(http, path, whole.encode("utf-16"))
    send(http, path, whole, "text/plain")
    send(http, path, whole, "application/x-www-form-urlencoded")
    send(http, path, b"\xff\xfe\x00")


@pytest.mark.parametrize("path", PATHS)
def test_numbers_that_are_none(http: httpx.Client, path: str) -> None:
    schema = http.get("/openapi.json").json()["components"]["schemas"]
    form = {"/v1/completions": "Completion", "/v1/chat/completions": "ChatCompletion", "/v1/responses": "ResponseForm"}
    fields: dict[str, Any] = schema[form.get(path, "MessageForm")]["properties"]
    numbers = [
        n
        for n, field in fields.items()
        if field.get("type", field.get("anyOf", [{}])[0].get("type")) in ("number", "integer")
    ]
    assert {"temperature", "seed"} <= set(numbers)
    for name in numbers:
        for value in ("NaN", "Infinity", "1e308", "-1e308", "1e999", '""', "[]", "{}"):
            send(http, path, json.dumps({**PATHS[path], name: "VALUE"}).replace('"VALUE"', value))


@pytest.mark.parametrize("path", PATHS)
def test_halves_of_characters_and_far_too_much(http: httpx.Client, path: str) -> None:
    asked = PATHS[path]
    message = [{"role": "user", "content": HALF}]
    parts = [{"role": "user", "content": [{"type": "text", "text": HALF}]}]
    many = ["s"] * 1_000_000
    bad: list[dict[str, Any]] = [
        {"model": HALF},
        {HALF: 1},
        {"x" * 100_000: 1},
        {"user": HALF},
        {"metadata": {HALF: ""}},
    ]
    bad += [{"stop": many}, {"stop_sequences": many}, {"afresh": {"settings": {HALF: HALF}}}, {"n": 10**6, "seed": 1}]
    if "prompt" in asked:
        bad += [{"prompt": HALF}, {"suffix": HALF}, {"prompt": [HALF]}, {"stop": HALF}]
    elif "input" in asked:
        bad += [{"input": HALF}, {"input": message}, {"input": parts}, {"instructions": HALF}]
    else:
        bad += [{"messages": message}, {"messages": parts}]
    if path == "/v1/messages":
        bad = [change for change in bad if "n" not in change]
    if path == "/v1/completions" or "chat" in path:
        for schema in (
            {"enum": [HALF]},
            {HALF: 1},
            {"properties": {HALF: {"type": HALF}}},
            {"$ref": "#/x"},
            {"type": 3},
        ):
            bad.append({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
    for change in bad:
        send(http, path, json.dumps({**asked, **change}))


def test_other_methods_and_ranges(http: httpx.Client) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE"):
        answer = http.request(method, "/v1/completions")
        assert answer.status_code == 405 and answer.json()["error"]["type"] == "invalid_request_error"
    ranges = "bytes=" + ",".join(f"{i}-" for i in range(2000))
    assert http.get("/v1/models", headers={"range": ranges}).status_code == 200
