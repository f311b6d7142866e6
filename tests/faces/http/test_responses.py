"""OpenAI's responses through the official client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

import afresh
from tests import needs

openai = needs.package("openai", "openai")

ASKED = {"model": "chat", "input": "Say 3?", "max_output_tokens": 12, "extra_body": {"seed": 4}}


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_a_response_is_the_sample_of_the_run(client: openai.OpenAI, runs: Path) -> None:
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)
    made = client.responses.create(**ASKED)
    assert made.output_text == own[0] and made.status in ("completed", "incomplete")
    assert made.usage is not None and made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert (made.incomplete_details is None) == (made.status == "completed")

    async def later() -> str:
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none", max_retries=0) as other:
            return (await other.responses.create(**ASKED)).output_text

    assert asyncio.run(later()) == own[0]


def test_its_stream_has_typed_events(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASKED, include=["message.output_text.logprobs"], top_logprobs=2)
    events = list(
        client.responses.create(**ASKED, include=["message.output_text.logprobs"], top_logprobs=2, stream=True)
    )
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:-1] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    deltas = [e for e in events if e.type == "response.output_text.delta"]
    assert "".join(e.delta for e in deltas) == whole.output_text == events[-1].response.output_text
    content = whole.output[0].content[0].logprobs
    assert [x.logprob for e in deltas for x in e.logprobs] == [x.logprob for x in content]
    assert events[-1].type == f"response.{whole.status}" and events[-1].response.usage == whole.usage
    ended = ASKED | {"extra_body": {"seed": 4, "afresh": {"regex": "[0-9]{3}"}}}  # the client waits for a complete one
    with client.responses.stream(**ended) as stream:
        last = stream.get_final_response()
    assert last.status == "completed" and last.output_text == client.responses.create(**ended).output_text


def test_conversations_and_schemas(client: openai.OpenAI, runs: Path) -> None:
    turns = [
        {"role": "user", "content": "Say 1?"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "It is 1."}]},
        {"role": "user", "content": [{"type": "input_text", "text": "Say 2?"}]},
    ]
    asked = {"model": "chat", "max_output_tokens": 8, "extra_body": {"seed": 1}}
    made = client.responses.create(**asked, input=turns, instructions="Be brief.")
    chat = client.chat.completions.create(
        model="chat",
        seed=1,
        max_tokens=8,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say 1?"},
            {"role": "assistant", "content": "It is 1."},
            {"role": "user", "content": "Say 2?"},
        ],
    )
    assert made.output_text == chat.choices[0].message.content
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    made = client.responses.create(model="chat", input="Say 3?", text=form, max_output_tokens=40)
    assert json.loads(made.output_text)["a"] in (1, 2)


REFUSED = {
    "earlier": ({"previous_response_id": "resp_1"}, "previous_response_id", "Send the messages before in `input`"),
    "tools": ({"tools": [{"type": "function", "name": "f"}]}, "tools", "did not learn to call tools"),
    "items": ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0", "of type 'item_reference'"),
    "images": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        "input.0.content",
        "read text only",
    ),
    "answer last": ({"input": [{"role": "assistant", "content": "a"}]}, "input", "last message must be the user's"),
    "unknown": ({"frobnicate": 1}, "frobnicate", "not known here"),
    "background": ({"background": True}, "background", "False"),
    "logprobs": ({"top_logprobs": 3}, "top_logprobs", "needs include"),
    "no conversation": ({"model": "stories"}, "model", "not trained on conversations"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_apply_is_refused_with_advice(http: httpx.Client, name: str, stream: bool) -> None:
    change, param, message = REFUSED[name]
    answer = http.post("/v1/responses", json={"model": "chat", "input": "Say 3?", "stream": stream, **change})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param and message in error["message"]
