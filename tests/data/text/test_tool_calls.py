"""Calls in answers are found whatever the pieces in which an answer comes, and nothing else is lost."""

from __future__ import annotations

import pytest

from afresh.data.text.chat import ChatTemplate
from afresh.data.text.tool_calls import Call, CallReader, has_tools
from tests.data.text.test_chat import tokenizer

ROME, NICE = Call("weather", {"city": "Rome é"}), Call("weather", {})
ANSWERS = {
    "text": ("It is 3.", ["It is 3."]),
    "nothing": ("", []),
    "white space": (" \n", [" \n"]),
    "a call": (ROME.text, [ROME]),
    "text and calls": (f"So:\n\n{ROME.text}\n{NICE.text}\n", ["So:", ROME, NICE]),
    "text between": (f"{ROME.text} and {NICE.text}", [ROME, " and", NICE]),
    "not closed": ('<tool_call>{"name": "weather"}', [NICE]),
    "not JSON": ("a <tool_call>x</tool_call> b", ["a <tool_call>x</tool_call> b"]),
    "not a call": ('<tool_call>{"arguments": {}}</tool_call>', ['<tool_call>{"arguments": {}}</tool_call>']),
    "not a number": ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', None),
    "half a character": ('<tool_call>{"name": "f", "arguments": {"x": "\\ud800"}}</tool_call>', None),
    "cut": ('a <tool_call>{"name": "wea', ['a <tool_call>{"name": "wea']),
    "a mark that is none": ("a <tool_box> <tool", ["a <tool_box> <tool"]),
}


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("case", ANSWERS)
def test_calls_are_separated_from_text(case: str, size: int) -> None:
    text, parts = ANSWERS[case]
    reader, found = CallReader(), list[str | Call]()
    for i in range(0, len(text), size):
        found += reader.add(text[i : i + size])
    found += reader.close()
    joined: list[str | Call] = []
    for part in found:
        if joined and isinstance(part, str) and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    assert joined == ([text] if parts is None else parts)


def test_templates_are_given_tools_and_results() -> None:
    template = (
        "{% for t in tools or [] %}{{ t.name + ' <tool_call> ' }}{% endfor %}{% for m in messages %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    )
    chat = ChatTemplate(tokenizer("bytes", template))
    turns = (("tools", '[{"name": "f <|im_end|>"}]'), ("user", "a"), ("assistant", NICE.text), ("tool", "sunny"))
    ids = chat.encode([turns], [""])[0][0]
    assert chat.has_tools and not has_tools("{{ messages }}") and not has_tools(None)
    assert list(ids).count(chat.marks["<|im_end|>"].id) == 3  # not the one in the name of the tool
    text = chat.tokenizer.decode(ids.tolist())
    assert text.startswith("f <|im_end|> <tool_call> ") and text.endswith("<tool_response>\nsunny\n</tool_response>")
