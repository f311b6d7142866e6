"""How long a text may be, and why it ended, in each dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from tests import needs

openai = needs.package("openai", "openai")

SAY = [{"role": "user", "content": "Say 3?"}]
MANY = 128_000  # what agents ask for
# Each dialect: a request, the name of its limit of tokens (a path), and how it says that a text is complete, or cut.
DIALECTS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "/v1/completions": ({"model": "stories", "prompt": "Once"}, "max_tokens", "stop", "length"),
    "/v1/chat/completions": ({"model": "chat", "messages": SAY}, "max_completion_tokens", "stop", "length"),
    "/v1/responses": ({"model": "chat", "input": "Say 3?"}, "max_output_tokens", "completed", "incomplete"),
    "/v1/messages": ({"model": "chat", "messages": SAY}, "max_tokens", "end_turn", "max_tokens"),
    "/api/generate": ({"model": "stories", "prompt": "Once"}, "options.num_predict", "stop", "length"),
    "/api/chat": ({"model": "chat", "messages": SAY}, "options.num_predict", "stop", "length"),
    "/infill": ({"model": "code", "input_prefix": "def"}, "n_predict", "eos", "limit"),
}
REASONS = ("finish_reason", "status", "stop_reason", "done_reason", "stop_type")


def limited(path: str, tokens: int, **more: Any) -> dict[str, Any]:
    body, limit, _, _ = DIALECTS[path]
    outer, _, inner = limit.partition(".")
    return {**body, outer: {inner: tokens} if inner else tokens, "stream": False, **more}


def reasons(value: Any) -> list[str]:
    """Why the text ended, wherever a dialect says so."""
    if isinstance(value, Mapping):
        own = [v for k, v in value.items() if k in REASONS and isinstance(v, str)]
        return own + [r for v in value.values() for r in reasons(v)]
    return [r for v in value for r in reasons(v)] if isinstance(value, list) else []


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream, in server-sent events or in lines of JSON."""
    lines = (line.removeprefix("data: ") for line in answer.text.split("\n"))
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
def test_a_text_to_which_nothing_may_be_added_is_complete(writers: httpx.Client, path: str, stream: bool) -> None:
    """Clients that read JSON, such as openai's `parse` and LangChain, fail for one that is said to be cut."""
    complete, cut = DIALECTS[path][2:]
    for pattern, reason in (("[0-9]{3}", complete), ("[0-9]{3,}", cut)):
        answer = writers.post(path, json=limited(path, 3, stream=stream, afresh={"regex": pattern})).raise_for_status()
        assert reasons(events(answer) if stream else answer.json())[-1] == reason


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", DIALECTS)
def test_more_tokens_than_a_text_may_have_are_as_many(
    writers: httpx.Client, path: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.faces.http.requests.forms.MOST_TOKENS", 4)
    cut = DIALECTS[path][3]
    asked = limited(path, MANY, stream=stream, afresh={"regex": "[0-9]{4,}"})
    answer = writers.post(path, json=asked).raise_for_status()
    assert answer.headers["x-afresh-max-tokens"] == "4"
    assert reasons(events(answer) if stream else answer.json())[-1] == cut
    fewer = writers.post(path, json=limited(path, 4, stream=stream)).raise_for_status()
    assert "x-afresh-max-tokens" not in fewer.headers


class Pet(BaseModel):
    name: str
    legs: int


def test_openai_parses_an_answer_that_was_ended_in_time(writers: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{writers.base_url}/v1", api_key="none", max_retries=0)
    for tokens in (40, 50):
        chat = client.chat.completions.parse(
            model="chat",
            messages=SAY,
            response_format=Pet,
            max_tokens=tokens,
            seed=1,  # type: ignore[arg-type]
        )
        assert isinstance(chat.choices[0].message.parsed, Pet)
        response = client.responses.parse(model="chat", input="Say 3?", text_format=Pet, max_output_tokens=tokens)
        assert isinstance(response.output_parsed, Pet)


@pytest.mark.parametrize("path", [p for p in DIALECTS if p != "/infill"])
def test_a_length_among_the_settings_is_not_ignored(writers: httpx.Client, path: str) -> None:
    answer = writers.post(path, json=limited(path, 3, afresh={"settings": {"length": 2}}))
    assert answer.status_code == 400 and "The number of tokens is `" in answer.text
    twice = {"temperature": 0.5} if not path.startswith("/api") else {"options": {"temperature": 0.5}}
    answer = writers.post(
        path,
        json=limited(path, 3)
        | twice
        | {"afresh": {"settings": {"temperature": 1}}}
        | ({"max_tokens": 3} if path == "/v1/messages" else {}),
    )
    assert answer.status_code == 400 and "leave it out of `settings`" in answer.text
