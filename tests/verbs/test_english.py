"""English prose is told from what only looks like text."""

from __future__ import annotations

import inspect
from json import decoder

import pytest

from afresh.verbs.base_advice import is_english

PROSE = "It was the best of times, and she had been there with all of them; but what would he do when they left? " * 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, True),
        (PROSE.upper(), True),
        ("# Notes\n\n- a list of what there is to do\n- who will be at the table\n" * 30, True),
        (inspect.getsource(decoder), False),
        ("emma olivia ava isabella sophia " * 100, False),
        ("Es war einmal ein König, der hatte eine Tochter, und die war schöner als alle anderen. " * 30, False),
        ("从前有一个国王，他有一个女儿。" * 100, False),
        ("It was the best of times.", False),  # too little to tell
        ("", False),
    ],
)
def test_english_is_known_by_its_function_words(text: str, expected: bool) -> None:
    assert is_english([text]) == expected


def test_many_texts_are_judged_together() -> None:
    sentences = [s for s in PROSE.split("?") if s]
    assert is_english(sentences) and not is_english([*sentences, "no es un texto de esta lengua " * 400])
    assert not is_english([])
