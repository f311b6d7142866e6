"""Calls of tools in a conversation, as the chat templates of Qwen, Hermes and others have them.

An answer contains calls as <tool_call>{"name": ..., "arguments": {...}}</tool_call>, and a turn of the role `tool` has
the result of one. The tools themselves are a first turn of the role `tools`: a JSON list in the form of OpenAI's API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

TOOLS, RESULT = "tools", "tool"  # roles of turns
OPEN, CLOSE = "<tool_call>", "</tool_call>"
RESPONSE = "<tool_response>"


@dataclass(frozen=True)
class Call:
    """A call of a tool by its name, with its arguments by name."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def json(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.arguments, ensure_ascii=False)

    @property
    def text(self) -> str:
        """The call as it stands in an answer."""
        return f"{OPEN}\n{json.dumps({'name': self.name, 'arguments': self.arguments}, ensure_ascii=False)}\n{CLOSE}"


def has_tools(template: str | None) -> bool:
    """Whether a chat template has a place for tools, and their calls this form."""
    return template is not None and OPEN in template and re.search(r"\btools\b", template) is not None


def result_text(text: str, template: str) -> str:
    """The content of a turn with the result of a call, for a template that may or may not mark it as one."""
    return text if RESPONSE in template else f"{RESPONSE}\n{text}\n{RESPONSE.replace('<', '</')}"


def parse_call(text: str) -> Call | None:
    """The call that stands between the marks, or None if it is not one."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        text.encode()
        found = json.loads(text, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # an escape may be half a character
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", {})
    return Call(found["name"], arguments) if isinstance(arguments, dict) else None


class CallReader:
    """Separates the calls in an answer from its text, while it is written.

    White space before a call belongs to neither. What stands between the marks and is not a call is text.
    """

    def __init__(self) -> None:
        self.waiting = ""  # what may belong to a call
        self.calls = 0

    def add(self, piece: str) -> list[str | Call]:
        """The texts and calls that are complete after another piece of the answer."""
        self.waiting += piece
        out: list[str | Call] = []
        while (start := self.waiting.find(OPEN)) >= 0:
            end = self.waiting.find(CLOSE, start)
            if end < 0:
                self.give(out, len(self.waiting[:start].rstrip()))
                return out
            self.take(out, start, end)
        length = len(self.waiting)
        begun = next((k for k in range(len(OPEN) - 1, 0, -1) if self.waiting.endswith(OPEN[:k])), 0)
        self.give(out, len(self.waiting[: length - begun].rstrip()))
        return out

    def close(self) -> list[str | Call]:
        """What is left at the end of the answer. A last call may lack its closing mark, before which answers stop."""
        out: list[str | Call] = []
        start = self.waiting.find(OPEN)
        if start >= 0:
            self.take(out, start, len(self.waiting))
        elif self.waiting.strip() or not self.calls:
            self.give(out, len(self.waiting))
        return out

    def give(self, out: list[str | Call], upto: int) -> None:
        """Append the beginning of what is waiting, as text."""
        if upto:
            out.append(self.waiting[:upto])
        self.waiting = self.waiting[upto:]

    def take(self, out: list[str | Call], start: int, end: int) -> None:
        """Append the text before a call, and the call."""
        call = parse_call(self.waiting[start + len(OPEN) : end])
        if call is None:
            self.give(out, end + len(CLOSE))
            return
        before, self.waiting = self.waiting[:start].rstrip(), self.waiting[end + len(CLOSE) :]
        self.calls += 1
        out += [before, call] if before else [call]
