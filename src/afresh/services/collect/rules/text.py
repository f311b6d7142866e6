"""A text divided into words, lines and paragraphs once, for all rules that look at them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from afresh.services.collect.record import Record

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
PARAGRAPH = re.compile(r"\n[ \t]*\n")
# Chinese, Japanese, Thai, Lao, Burmese and Khmer have no spaces between words, and the words of Korean are short.
DENSE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class RuleText:
    """What rules ask of a text; each answer is found once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        """Runs of letters and digits, in order; an apostrophe within a word belongs to it."""
        return WORD.findall(self.text)

    @cached_property
    def characters(self) -> int:
        """Of all words."""
        return sum(map(len, self.words))

    @cached_property
    def lines(self) -> list[str]:
        """Those that are not empty, without white space around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What empty lines separate."""
        return [p for p in map(str.strip, PARAGRAPH.split(self.text)) if p]

    @cached_property
    def alphabetic(self) -> bool:
        """Whether it is written in an alphabet with spaces between words, so that words can be counted."""
        return self.text.isascii() or 10 * len(DENSE.findall(self.text)) < len(self.text)


@lru_cache(maxsize=1)
def text_of(text: str) -> RuleText:
    """The parts of a text. Rules ask one after the other for the same."""
    return RuleText(text)


def changed_text(record: Record, text: str) -> Record:
    """The record with this text; itself if the text is the same."""
    return record if text == record.text else replace(record, text=text)


def changed_lines(record: Record, keep: Callable[[str], bool], nothing: str) -> Record | str:
    """The record without the lines that are not kept, or `nothing` if only empty lines would be left."""
    lines = (record.text or "").split("\n")
    kept = [line for line in lines if not line.strip() or keep(line)]
    if len(kept) == len(lines):
        return record
    if not any(map(str.strip, kept)):
        return nothing
    return replace(record, text="\n".join(kept))


# --------------------------------------------------------------------------- conversations


def readable(record: Record) -> str:
    """The text of a record; of a conversation, what was written in it, without names of fields and of roles."""
    text = record.text or ""
    return _written(text) if record.kind == "conversation" else text


def rewritten(record: Record, change: Callable[[str], str]) -> Record:
    """The record with its text changed; of a conversation, each string that was written in it."""
    text = record.text or ""
    if record.kind != "conversation":
        return changed_text(record, change(text))
    try:
        before = json.loads(text)
    except (ValueError, RecursionError):
        return changed_text(record, change(text))
    after = _each(before, change)
    return record if after == before else replace(record, text=json.dumps(after, ensure_ascii=False))


def _each(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case list():
            return [_each(v, change) for v in value]
        case dict():
            return {k: v if k == "role" else _each(v, change) for k, v in value.items()}
    return value


@lru_cache(maxsize=1)
def _written(conversation: str) -> str:
    written: list[str] = []

    def note(text: str) -> str:
        written.append(text)
        return text

    try:
        _each(json.loads(conversation), note)
    except (ValueError, RecursionError):
        return conversation
    return "\n".join(written)
