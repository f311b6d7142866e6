"""A list is told from a text of many lines."""

from __future__ import annotations

import pytest

from afresh.data.text.lists import is_list, may_be_list

NAMES = "".join(
    f"{a}{b}{c}\n"
    for a in "ABCDEFG"
    for b in ("an", "or", "ela", "imo", "un")
    for c in ("a", "n", "ra", "do", "ki", "s")
)
LINE = "the rain went on and on until the river was as wide as a lake and the people"
PROSE = "".join(f"{LINE} {i}\n{LINE}\nwent home. Then\n" for i in range(100))
VERSE = "".join(f"Of man's first number {i},\nAnd the fruit of that\n" for i in range(150))
CHAT = "".join(f"Anna: number {i}?\nBen: number {i + 1}!\n" for i in range(150))


def test_names_are_a_list() -> None:
    assert may_be_list(NAMES) and is_list(NAMES)
    assert is_list("".join(f"The House {i}\r\n" for i in range(300)))
    assert is_list("".join(f"What is {i} times {i}?\n" for i in range(300)))


@pytest.mark.parametrize("text", [PROSE, VERSE, CHAT], ids=["prose", "verse", "chat"])
def test_lines_that_belong_together_are_not(text: str) -> None:
    assert may_be_list(text) and not is_list(text)


@pytest.mark.parametrize(
    "text", [NAMES[:500], NAMES.replace("\n", "\n\n"), "same line\n" * 500, NAMES + "long " * 200], ids=str.__len__
)
def test_short_divided_or_repeated_texts_are_not(text: str) -> None:
    assert not is_list(text)
