"""No rule takes long on a large text that is made to be hard: its time grows with the length, not with the square."""

from __future__ import annotations

import time
from typing import Any

import pytest

from afresh.collect.record import Record
from afresh.collect.rules import rules

pytestmark = pytest.mark.slow
SIZE = 200_000  # characters; a search whose time is quadratic takes minutes for them
LIMIT = 10.0  # seconds of the processor for all rules together, many times what they need
HARD = ["a", " ", "\n", "0", "@", ".", "-", "é", "漢", "a.", "1.", ":1", "a@", "+1 ", "eyJ", "a | ", "password='", "Ã©"]
TEXTS = ("text", "code", "conversation")


def value_of(name: str, own: Any) -> Any:
    return {"personal": ["mask"], "secrets": "mask", "words": "b\n"}.get(name, own)


@pytest.mark.parametrize("piece", HARD, ids=[ascii(p) for p in HARD])
def test_rules_take_no_longer_for_texts_that_are_hard(piece: str) -> None:
    record = Record("text", "s", "w", text=piece * (SIZE // len(piece)))
    begun = time.process_time()
    for rule in (r for r in rules() if set(r.kinds) & set(TEXTS) and r.name != "language"):
        rule.with_value(value_of(rule.name, rule.value))(record)
    assert time.process_time() - begun < LIMIT
