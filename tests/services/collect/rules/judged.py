"""What a rule makes of a text, for the tests."""

from __future__ import annotations

from typing import Any

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Verdict, rules

BY_NAME = {rule.name: rule for rule in rules()}


def judged(name: str, item: Record | str, value: Any = None) -> Verdict:
    """The verdict of a rule by the value, or else its own, on a record or a text."""
    rule = BY_NAME[name]
    record = item if isinstance(item, Record) else Record("text", "source", "file.txt", text=item)
    return rule.with_value(rule.value if value is None else value)(record)


def kept(name: str, item: Record | str, value: Any = None) -> bool:
    """Whether a rule keeps it."""
    return isinstance(judged(name, item, value), Record)


def text_after(name: str, item: Record | str, value: Any = None) -> str:
    """The text that is left by a rule that keeps the record."""
    verdict = judged(name, item, value)
    assert isinstance(verdict, Record), verdict
    return verdict.text or ""
