"""Anthropic's messages through the official client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

import afresh
from tests import needs

anthropic = needs.package("anthropic", "anthropic")

ASKED = {
    "model": "chat",
    "messages": [{"role": "user", "content": "Say 3?"}],
    "max_tokens": 12,
    "extra_body": {"seed": 4},
}


@pytest.fixture
def client(address: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)


def test_a_message_is_the_sample_of_the_run(client: anthropic.Anthropic, runs: Path) -> None:
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)[0]
    made = client.messages.create(**ASKED)
    assert made.content[0].text == own and made.stop_reason in ("end_turn", "max_tokens")
    count = client.messages.count_tokens(model="chat", messages=ASKED["messages"])
    assert count.input_tokens == made.usage.input_tokens

    async def later() -> str:
        async with anthropic.AsyncAnthropic(base_url=client.base_url, api_key="none", max_retries=0) as other:
            return (await other.messages.create(**ASKED)).content[0].text

    assert asyncio.run(later()) == own


def test_its_stream(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASKED)
    kinds = [e.type for e in client.messages.create(**ASKED, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with client.messages.stream(**ASKED) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        last = stream.get_final_message()
    assert (last.stop_reason, last.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    assert last.usage.input_tokens == whole.usage.input_tokens


def test_an_answer_ends_before_a_stop_sequence_and_names_it(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASKED).content[0].text
    stop = whole[4:6]
    made = client.messages.create(**ASKED, stop_sequences=["never", stop])
    assert (made.stop_reason, made.stop_sequence) == ("stop_sequence", stop)
    assert made.content[0].text == whole[: whole.index(stop)]
    with client.messages.stream(**ASKED, stop_sequences=["never", stop]) as stream:
        last = stream.get_final_message()
    assert (last.stop_reason, last.stop_sequence, last.content[0].text) == ("stop_sequence", stop, made.content[0].text)


def test_systems_and_blocks(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": [{"type": "text", "text": "Say 3?"}]}]
    texts = [
        client.messages.create(**ASKED | {"messages": m}, system=s).content[0].text
        for m, s in ((messages, system), (ASKED["messages"], "Be brief."))
    ]
    assert texts[0] == texts[1]


REFUSED = {
    "no length": ({"max_tokens": None}, 400, "max_tokens"),
    "tools": ({"tools": [{"name": "f", "input_schema": {}}]}, 400, "did not learn to call tools"),
    "images": ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "read text only"),
    "thinking": ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, 400, "thinking"),
    "unknown run": ({"model": "tales"}, 404, "No run named 'tales'"),
    "no conversation": ({"model": "stories"}, 400, "not trained on conversations"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_have_the_form_of_this_api(http: httpx.Client, name: str) -> None:
    change, status, message = REFUSED[name]
    answer = http.post("/v1/messages", json={**{k: v for k, v in ASKED.items() if k != "extra_body"}, **change})
    assert answer.status_code == status
    content = answer.json()
    assert content["type"] == "error" and set(content["error"]) == {"type", "message"}
    assert content["error"]["type"] == {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert message in content["error"]["message"]


def test_the_client_knows_the_errors(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="No run named"):
        client.messages.create(**ASKED | {"model": "tales"})
    with pytest.raises(anthropic.PermissionDeniedError, match="is not 'elsewhere'"):
        client.messages.create(**ASKED, extra_headers={"host": "elsewhere"})
