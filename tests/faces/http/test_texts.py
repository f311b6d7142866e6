"""Texts and answers through the official client: the same samples as without a server, and errors that teach."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.engine.sampling.tokens import Decoding
from afresh.faces.http.request_threads import EVERY
from tests import needs
from tests.faces.http.conftest import wait_for_active
from tests.plain import assert_plain

openai = needs.package("openai", "openai")

ASK = [{"role": "user", "content": "Say 3?"}]


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_models_are_the_runs(client: openai.OpenAI) -> None:
    assert {m.id for m in client.models.list()} >= {"stories", "chat", "digits"}
    assert client.models.retrieve("stories").object == "model"
    with pytest.raises(openai.NotFoundError, match=r"No run named 'tales' here. Runs: chat"):
        client.models.retrieve("tales")


def test_completions_are_the_samples_of_the_run(client: openai.OpenAI, runs: Path) -> None:
    made = client.completions.create(model="stories", prompt="Once", n=3, max_tokens=12, seed=5, temperature=0.9)
    own = afresh.load(runs / "stories").sample(3, prompt="Once", length=12, seed=5, temperature=0.9)
    assert [c.text for c in made.choices] == list(own)
    assert [c.index for c in made.choices] == [0, 1, 2]
    assert made.usage is not None and made.usage.prompt_tokens == 4 and 0 < made.usage.completion_tokens <= 36


def test_prompts_are_texts_or_tokens(client: openai.OpenAI, runs: Path) -> None:
    encoder = afresh.load(runs / "stories").run.encoder
    ids = encoder.prompt("Once").tolist()  # type: ignore[attr-defined]
    given = ["Once", ["Once", "A cat"], ids, [ids, encoder.prompt("A cat").tolist()]]  # type: ignore[attr-defined]
    one, two, three, four = (
        [c.text for c in client.completions.create(model="stories", prompt=p, seed=1, echo=True).choices] for p in given
    )
    assert one == three and two == four and one[0].startswith("Once") and two[1].startswith("A cat")


def test_a_stream_is_the_completion_in_pieces(client: openai.OpenAI) -> None:
    asked = {"model": "stories", "prompt": "Once", "n": 2, "max_tokens": 20, "seed": 2, "logprobs": 2, "stop": "q"}
    whole = client.completions.create(**asked)
    texts, ends, usage = ["", ""], {}, None
    tokens: list[list[float]] = [[], []]
    for chunk in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for c in chunk.choices:
            texts[c.index] += c.text
            tokens[c.index] += c.logprobs.token_logprobs if c.logprobs else []
            if c.finish_reason:
                ends[c.index] = c.finish_reason
    assert texts == [c.text for c in whole.choices] and usage == whole.usage
    assert ends == {c.index: c.finish_reason for c in whole.choices}
    assert tokens == [c.logprobs.token_logprobs for c in whole.choices]
    first = whole.choices[0].logprobs
    assert len(first.tokens) == len(first.text_offset) == 20 and "".join(first.tokens) == texts[0]
    assert all(len(top) == 2 for top in first.top_logprobs)


def test_a_prompt_alone_is_echoed(client: openai.OpenAI) -> None:
    asked = {"model": "stories", "prompt": ["Once", "a cat"], "max_tokens": 0, "echo": True}
    whole = client.completions.create(**asked)
    assert [c.text for c in whole.choices] == ["Once", "a cat"] and whole.usage.prompt_tokens == 9
    texts = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        for c in chunk.choices:
            texts[c.index] += c.text
    assert texts == ["Once", "a cat"]


def test_a_crowd_gets_what_each_would_get_alone(address: str) -> None:
    async def crowd() -> None:
        async def ask(i: int) -> str:
            made = await client.completions.create(
                model="stories", prompt="Once there was"[: i + 1], max_tokens=8 + 3 * i, seed=i, temperature=i / 8
            )
            return made.choices[0].text

        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            together = await asyncio.gather(*map(ask, range(12)))
            assert together == [await ask(i) for i in range(12)]

    asyncio.run(crowd())


def test_an_answer_and_its_stream(client: openai.OpenAI, runs: Path) -> None:
    asked = {"model": "chat", "messages": ASK, "seed": 4, "max_completion_tokens": 12}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)
    assert whole.choices[0].message.content == own[0]
    content = whole.choices[0].logprobs.content
    assert content and all(len(t.top_logprobs) == 3 for t in content)
    chunks = [c.choices[0] for c in client.chat.completions.create(**asked, stream=True)]
    assert "".join(c.delta.content or "" for c in chunks) == own[0] and chunks[0].delta.role == "assistant"
    assert chunks[-1].finish_reason == whole.choices[0].finish_reason


@pytest.mark.parametrize("stream", [False, True])
def test_json_follows_its_schema(client: openai.OpenAI, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = {"max_tokens": 40, "response_format": form}
    if stream:
        texts = [
            "".join(
                c.choices[0].delta.content or ""
                for c in client.chat.completions.create(model="chat", messages=ASK, stream=True, **asked)
            )
        ]
    else:
        made = client.completions.create(
            model="stories", prompt="", max_tokens=40, extra_body={"response_format": form}
        )
        texts = [
            client.chat.completions.create(model="chat", messages=ASK, **asked).choices[0].message.content or "",
            made.choices[0].text,
        ]
    assert all(json.loads(text)["a"] in (1, 2) for text in texts)


def test_penalties_and_biases(client: openai.OpenAI, runs: Path) -> None:
    token = afresh.load(runs / "stories").run.encoder.prompt("c").tolist()[0]  # type: ignore[attr-defined]
    made = client.completions.create(model="stories", prompt="Once", max_tokens=5, logit_bias={str(token): 100})
    assert made.choices[0].text == "ccccc"


BAD = {
    "temperature": ({"temperature": -1}, "temperature: .*at least 0. Given: -1"),
    "unknown parameter": ({"frobnicate": 1}, "frobnicate: This parameter is not known here"),
    "too many": ({"n": 1_000_000}, "n: .*at most 128"),
    "no room": ({"prompt": "c" * 100}, "100 tokens, and the model stories sees 64"),
    "an unknown id": ({"prompt": [10**6]}, "Token ids are from 0 to"),
    "best_of": ({"best_of": 3}, "Leave best_of out"),
    "infinity": ({"temperature": "inf"}, "temperature"),
    "stops": ({"stop": ["a"] * 10_000}, "stop"),
    "setting": ({"afresh": {"settings": {"speed": 3}}}, "transformer does not know speed"),
    "label": ({"afresh": {"label": "cat"}}, "trained without labels"),
    "schema": ({"response_format": {"type": "json_schema"}}, "needs a schema"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_advice(http: httpx.Client, name: str) -> None:
    change, message = BAD[name]
    answer = http.post("/v1/completions", json={"model": "stories", "prompt": "Once", **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert re.search(message, error["message"]), error["message"]
    assert_plain(error["message"])


def test_what_a_run_did_not_learn(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="was not trained on conversations"):
        client.chat.completions.create(model="stories", messages=ASK)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="makes images, not texts"):
        client.completions.create(model="digits", prompt="x")
    tool = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(openai.BadRequestError, match="did not learn to call tools"):
        client.chat.completions.create(model="chat", messages=ASK, tools=[tool])  # type: ignore[arg-type, list-item]


def never_ends(runs: Path) -> dict[str, int]:
    """Biases with which a story goes on until it is as long as it may be."""
    return {str(afresh.load(runs / "stories").run.space.special["end"]): -100}


def test_a_client_that_goes_away_frees_its_place(http: httpx.Client, runs: Path) -> None:
    asked = {"model": "stories", "prompt": "Once", "max_tokens": 16_000, "stream": True}
    asked["logit_bias"] = never_ends(runs)
    with http.stream("POST", "/v1/completions", json=asked) as answer:
        assert answer.status_code == 200, answer.read()
        lines = answer.iter_lines()
        next(lines)
        wait_for_active(http, 1)
    wait_for_active(http, 0)


def test_too_many_requests_are_asked_to_come_again(runs: Path) -> None:
    from afresh.faces.http.app import ServeSettings
    from tests.faces.http.conftest import serving

    server = serving(ServeSettings([runs], memory=2**30, most_requests=1))
    address = next(server)
    asked = {"model": "stories", "prompt": "Once", "max_tokens": 16_000, "logit_bias": never_ends(runs)}
    long, answered = threading.Event(), threading.Event()

    def ask() -> None:
        with (
            httpx.Client(base_url=address) as client,
            client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            long.set()
            answered.wait(60)

    thread = threading.Thread(target=ask)
    thread.start()
    assert long.wait(60)
    answer = httpx.post(f"{address}/v1/completions", json=asked, timeout=60)
    answered.set()
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    thread.join()
    next(server, None)


@pytest.mark.parametrize("prompt", ["One", [1, 2, 3]])
@pytest.mark.parametrize("more", [{}, {"suffix": " end."}, {"stream": True, "suffix": " end."}, {"echo": True}])
def test_what_makes_no_texts_completes_none(http: httpx.Client, prompt: object, more: dict[str, object]) -> None:
    answer = http.post("/v1/completions", json={"model": "digits", "prompt": prompt, **more})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "wrong_modality"


def test_a_prompt_of_exactly_the_context_is_taken(http: httpx.Client) -> None:
    asked = {"model": "stories", "max_tokens": 1}
    assert http.post("/v1/completions", json={**asked, "prompt": "a" * 64}).status_code == 200
    answer = http.post("/v1/completions", json={**asked, "prompt": "a" * 65})
    assert answer.status_code == 400 and "has 65 tokens" in answer.json()["error"]["message"]


def test_a_stream_says_where_each_token_begins_as_the_whole_does(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"model": "stories", "prompt": "Once", "max_tokens": 10, "seed": 3, "logprobs": 1}
    step = Decoding.step

    def slow(self: Decoding) -> Any:
        time.sleep(1.2 * EVERY)  # each token is an event of its own
        return step(self)

    monkeypatch.setattr(Decoding, "step", slow)
    whole = http.post("/v1/completions", json=asked).json()["choices"][0]["logprobs"]
    lines = http.post("/v1/completions", json={**asked, "stream": True}).text.split("\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    parts = [c["logprobs"] for e in events for c in e["choices"] if c.get("logprobs")]
    assert len(parts) > 1
    for name in ("tokens", "text_offset"):
        assert [value for part in parts for value in part[name]] == whole[name]
