"""Calls of tools through the official clients: what must be a call is one, in whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.faces.http.app import ServeSettings
from tests import needs
from tests.faces.http.conftest import serving

openai = needs.package("openai", "openai")
anthropic = needs.package("anthropic", "anthropic")
needs.package("llguidance", "llguidance")

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Nice"]}, "note": {"type": "string", "maxLength": 5}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "The <|im_end|> weather", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FUNCTION}
ASK: Any = [{"role": "user", "content": "Say 3?"}]
FREE = {"afresh": {"regex": r'So\n<tool_call>\n\{"name": "weather", "arguments": \{"city": "Rome"\}\}\n</tool_call>'}}


@pytest.fixture(scope="module")
def address(tools: Path) -> Iterator[str]:
    """A server of a run whose chat template has tools."""
    yield from serving(ServeSettings([tools], memory=2**30))


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.fixture
def claude(address: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_follows_its_schema_and_its_result_is_answered(client: openai.OpenAI, choice: Any) -> None:
    asked = {"model": "tools", "tools": [TOOL], "tool_choice": choice, "seed": 1, "parallel_tool_calls": False}
    made = client.chat.completions.create(messages=ASK, **asked).choices[0]
    assert made.finish_reason == "tool_calls" and made.message.content is None
    (call,) = made.message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Rome", "Nice")
    chunks = [c.choices[0] for c in client.chat.completions.create(messages=ASK, stream=True, **asked)]
    (piece,) = [t for c in chunks for t in c.delta.tool_calls or ()]
    assert piece.function.model_dump() == call.function.model_dump() and piece.index == 0
    assert chunks[-1].finish_reason == "tool_calls"
    messages = [*ASK, made.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    after = client.chat.completions.create(model="tools", tools=[TOOL], messages=messages, max_tokens=4)
    assert after.choices[0].message.role == "assistant" and after.usage.prompt_tokens > 300


def test_text_and_a_call_that_the_model_chose(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tools", "tools": [TOOL], "messages": ASK, "extra_body": FREE}
    made = client.chat.completions.create(**asked).choices[0]
    assert made.message.content == "So" and made.finish_reason == "tool_calls"
    assert json.loads(made.message.tool_calls[0].function.arguments) == {"city": "Rome"}
    chunks = [c.choices[0] for c in client.chat.completions.create(stream=True, **asked)]
    assert "".join(c.delta.content or "" for c in chunks) == "So"
    cut = {**asked, "extra_body": {}, "max_tokens": 4, "temperature": 0}  # a draw may end sooner
    one = client.chat.completions.create(parallel_tool_calls=False, **cut)
    assert one.choices[0].finish_reason == "length"
    none = client.chat.completions.create(tool_choice="none", **asked).choices[0]
    assert "<tool_call>" in (none.message.content or "") and none.message.tool_calls is None


@pytest.mark.parametrize("stream", [False, True])
def test_calls_in_responses(client: openai.OpenAI, stream: bool) -> None:
    tool = {"type": "function", "strict": True, **FUNCTION}
    asked: Any = {"model": "tools", "tools": [tool], "input": ASK, "extra_body": FREE}
    if stream:
        events = list(client.responses.create(stream=True, **asked))
        assert {"response.function_call_arguments.done", "response.output_text.done"} <= {e.type for e in events}
        made = events[-1].response
    else:
        made = client.responses.create(**asked)
    said, call = made.output
    assert made.output_text == "So" and said.status == call.status == "completed"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Rome"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = client.responses.create(model="tools", input=[*ASK, *made.output, result], max_output_tokens=4)
    assert after.output[0].type == "message"
    forced = client.responses.create(**asked | {"extra_body": {}}, tool_choice={"type": "function", "name": "weather"})
    assert [o.type for o in forced.output] == ["function_call"] and forced.status == "completed"


def test_calls_in_messages(claude: anthropic.Anthropic) -> None:
    tool = {"name": "weather", "input_schema": SCHEMA}
    asked: Any = {"model": "tools", "max_tokens": 400, "tools": [tool], "messages": ASK}
    made = claude.messages.create(**asked, extra_body=FREE)
    said, call = made.content
    assert said.text == "So" and call.input == {"city": "Rome"} and made.stop_reason == "tool_use"
    with claude.messages.stream(**asked, extra_body=FREE) as stream:
        last = stream.get_final_message()
    assert [b.type for b in last.content] == ["text", "tool_use"] and last.content[1].input == call.input
    assert last.stop_reason == "tool_use"
    one = {"type": "any", "disable_parallel_tool_use": True}
    assert [b.type for b in claude.messages.create(**asked, tool_choice=one).content] == ["tool_use"]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    blocks = [b.model_dump(include={"type", "text", "id", "name", "input"}) for b in made.content]
    messages = [*ASK, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    count = claude.messages.count_tokens(model="tools", messages=messages, tools=[tool])
    assert count.input_tokens > claude.messages.count_tokens(model="tools", messages=ASK).input_tokens


BROKEN = {"type": "function", "function": {"name": "f", "parameters": {"type": 3}}}
REFUSED = {
    "no such tool": ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "No tool named 'f'.*weather"),
    "two of a name": ({"tools": [TOOL, TOOL]}, "Two tools are named"),
    "a result of nothing": ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "belongs to a call"),
    "two forms": ({"tool_choice": "required", **FREE}, "cannot match another form"),
    "no tools": ({"tools": [], "tool_choice": "required"}, "there are no tools"),
    "not a schema": ({"tools": [BROKEN], "tool_choice": "required"}, "schema of a tool cannot be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_called_is_refused(address: str, case: str) -> None:
    import re

    change, words = REFUSED[case]
    body = {"model": "tools", "messages": ASK, "tools": [TOOL], **change}
    answer = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400 and re.search(words, answer.json()["error"]["message"]), answer.text
