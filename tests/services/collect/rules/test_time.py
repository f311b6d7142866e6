"""No rule takes long on a large text that is made to be hard: its time grows with the length, not with the square."""

from __future__ import annotations

import time
from typing import Any

import pytest

from afresh.services.collect.record import Record
from afresh.services.collect.rules import rules
from afresh.services.collect.rules.personal import find as find_personal
from afresh.services.collect.rules.secrets import find as find_secrets
from afresh.services.collect.rules.tokens import FORMS, OTHERS

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


LONG = 100_000  # characters of a beginning of something private, again and again
BODY = "a1B2c3D4e5"
KEY = "-----BEGIN PRIVATE KEY-----"
BEGINNINGS = [
    *(start + rest for start in (*FORMS, *(must for must, _ in OTHERS)) for rest in ("", BODY)),
    *(KEY, f"{KEY}\n{BODY * 3}\n", f"{KEY}\na: a: a: a: a: a: ", KEY + "+" * 60),
    *(
        "password",
        "password: ",
        "password='",
        "password(",
        "password is ",
        "password:a[ ",
        "password>",
        "--a-password=",
    ),
    *("secret-", "api key", "login a password ", "curl -u a:", "bearer a1", "basic aaaa", "a://", "a://b:", "a://b:c@"),
    *("a@b.", "a@b-", "a at ", "a at b dot ", "(dot)", "a (at) b", "%40", "a%40b.", "&#64;", '"a"@', " @ ", "a@["),
    *("gb82", "GB82 ", "DE12-", "2a02:", "2a02::", "1.2.", "+49 ", "+4", "(1)", "4111 "),
]


def test_what_begins_like_something_private_takes_no_longer_either() -> None:
    for start in BEGINNINGS:
        text = start * (LONG // len(start))
        begun = time.process_time()
        find_secrets(text, code=True)
        find_personal(text)
        assert time.process_time() - begun < LIMIT, start
