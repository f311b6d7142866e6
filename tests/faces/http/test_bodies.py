"""Bodies that are no requests: each is answered at once, with an error of the right form."""

from __future__ import annotations

import errno
import json
import logging
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from pydantic import BaseModel

from afresh.data.text.tokenizer import Tokenizer
from afresh.faces.http.errors import refused
from afresh.faces.http.protocols.anthropic.messages import MessageAnswer
from afresh.faces.http.protocols.llama_cpp.infill import InfillAnswer
from afresh.faces.http.protocols.ollama.chat import OllamaChatAnswer
from afresh.faces.http.protocols.ollama.generate import OllamaTextAnswer
from afresh.faces.http.protocols.openai.answers import ChatAnswer, CompletionAnswer
from afresh.faces.http.protocols.responses.responses import ResponseAnswer

PATHS = {
    "/v1/completions": {"model": "stories", "prompt": "Once", "max_tokens": 2},
    "/v1/chat/completions": {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/v1/responses": {"model": "chat", "input": "Hi", "max_output_tokens": 2},
    "/v1/messages": {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
    "/infill": {"model": "stories", "input_prefix": "Once", "n_predict": 2},
    "/api/generate": {"model": "stories", "prompt": "Once", "stream": False, "options": {"num_predict": 2}},
    "/api/chat": {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 2}},
}
FAULTS = {"/v1/messages": {"type", "message"}, "/infill": {"code", "message", "type"}}  # elsewhere as OpenAI has them
ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/completions": CompletionAnswer,
    "/v1/chat/completions": ChatAnswer,
    "/v1/responses": ResponseAnswer,
    "/v1/messages": MessageAnswer,
    "/infill": InfillAnswer,
    "/api/generate": OllamaTextAnswer,
    "/api/chat": OllamaChatAnswer,
}
HALF = "\ud800"


@pytest.mark.parametrize("path", PATHS)
def test_answers_are_those_of_the_description(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json={**PATHS[path], "stream": False}).raise_for_status().json()
    ANSWERS[path].model_validate(answer, strict=True)


IGNORED: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/completions": ({"user": "me"}, "user"),
    "/v1/chat/completions": ({"store": True, "user": "me", "metadata": None}, "store, user"),
    "/v1/responses": ({"store": False, "service_tier": "flex"}, "store, service_tier"),
    "/v1/messages": ({"metadata": {"user_id": "me"}, "service_tier": "auto"}, "metadata, service_tier"),
    "/infill": ({"cache_prompt": True, "id_slot": 0}, "id_slot, cache_prompt"),
    "/api/generate": ({"shift": True, "options": {"num_ctx": 4096, "num_predict": 2}}, "shift, options.num_ctx"),
    "/api/chat": ({"options": {"use_mmap": True, "num_predict": 2}}, "options.use_mmap"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", IGNORED)
def test_parameters_without_an_effect_are_accepted_and_named_in_one_header(
    http: httpx.Client, path: str, stream: bool
) -> None:
    change, names = IGNORED[path]
    plain = http.post(path, json={**PATHS[path], "stream": stream}).raise_for_status()
    assert "x-afresh-ignored" not in plain.headers
    answer = http.post(path, json={**PATHS[path], "stream": stream, **change}).raise_for_status()
    assert answer.headers["x-afresh-ignored"] == names
    refused = http.post(path, json={**PATHS[path], **change, "frobnicate": 1})
    assert refused.status_code == 400 and "frobnicate: This parameter is not known here" in refused.text


def check(answer: httpx.Response, path: str, begun: float) -> None:
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert time.monotonic() - begun < 10
    fault = answer.json()["error"]
    whole = {"message", "type", "param", "code"}
    assert isinstance(fault, str) if path.startswith("/api/") else set(fault) == FAULTS.get(path, whole)
    assert len(answer.content) < 3000


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


@pytest.mark.parametrize("path", [p for p in PATHS if p.startswith("/v1/")])
def test_numbers_that_are_none(http: httpx.Client, path: str) -> None:
    schema = http.get("/openapi.json").json()["components"]["schemas"]
    form = {
        "/v1/completions": "CompletionForm",
        "/v1/chat/completions": "ChatCompletion",
        "/v1/responses": "ResponseForm",
    }
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


LONG = "a" * 20_000_000


@pytest.mark.parametrize("path", [*(p for p in PATHS if p != "/infill"), "/v1/embeddings"])
def test_a_prompt_that_cannot_fit_is_refused_before_it_is_read(
    http: httpx.Client, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Tokenizer.encode_many

    def short(self: Tokenizer, texts: Sequence[str]) -> Any:
        assert sum(map(len, texts)) < 100_000, "a text that cannot fit was tokenised"
        return read(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_many", short)
    if "prompt" in (asked := PATHS.get(path, {"model": "stories"})) or path == "/v1/embeddings":
        asked = {**asked, "prompt" if "prompt" in asked else "input": LONG}
    elif "input" in asked:
        asked = {**asked, "input": LONG}
    else:
        asked = {**asked, "messages": [{"role": "user", "content": LONG}]}
    answer = http.post(path, json=asked)
    assert answer.status_code == 400, answer.text[:500]
    assert re.search("has 20,000,0.. characters, and this model sees at most", answer.text)


def test_names_that_no_file_can_have_are_no_failures_of_the_server(http: httpx.Client, log: list[Any]) -> None:
    for name in ("%00", "a%00b", "a" * 300, "a" * 300 + ":b", "stories:" + "a" * 300, "stories:%00", "%ff"):
        for path in (f"/studio/static/{name}", f"/v1/models/{name}", f"/afresh/v1/runs/{name}", f"/studio/runs/{name}"):
            assert 400 <= http.get(path).status_code < 500, path
        assert 400 <= http.get("/studio/preview", params={"run": unquote(name, errors="replace")}).status_code < 500
        assert http.post("/v1/completions", json={"model": unquote(name), "prompt": "a"}).status_code == 404
    assert all(entry["status"] < 500 for entry in log)
    assert [refused(e).status for e in (OSError(errno.ENAMETOOLONG, ""), OSError(errno.EIO, ""))] == [400, 500]


def test_a_client_that_leaves_within_its_body_is_no_failure(address: str, http: httpx.Client, log: list[Any]) -> None:
    host, port = address.removeprefix("http://").split(":")
    forms = {"/v1/completions": "application/json", "/afresh/v1/edits": "application/json"}
    forms |= {"/v1/images/edits": "multipart/form-data; boundary=x"}
    for path, kind in forms.items():
        log.clear()
        with socket.create_connection((host, int(port))) as client:
            head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: 1000\r\n\r\n"
            client.sendall(head.encode() + b"--x\r\n")
        until = time.monotonic() + 20
        while not (left := [entry for entry in log if entry["path"] == path]):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert [entry["status"] for entry in left] == [499], path


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What the server has logged of requests."""
    entries: list[Any] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.INFO:
                entries.append(json.loads(record.getMessage()))

    logger, handler = logging.getLogger("afresh.serve"), Heard()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield entries
    logger.removeHandler(handler)
    logger.setLevel(level)
