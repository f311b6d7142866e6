"""Numbers of things in messages."""

from __future__ import annotations

import pytest

from afresh.core.errors import UserError
from afresh.core.events import Event
from afresh.core.plural import counted, singular


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1006)] == ["0 steps", "1 step", "2 steps", "1,006 steps"]
    assert [counted(n, "copy", "copies") for n in (1, 2)] == ["1 copy", "2 copies"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1 characters are left out", "1 character is left out"),
        ("a.txt: 1 rows have no name; 21 rows have one", "a.txt: 1 row has no name; 21 rows have one"),
        ("1,001 files, 0.1 steps, 1 of 1 files are images", "1,001 files, 0.1 steps, 1 of 1 files are images"),
        ("1 steps", "1 step"),
    ],
)
def test_every_message_agrees_with_one(written: str, shown: str) -> None:
    assert singular(written) == str(UserError(written)) == Event("note", "x", written).text == shown
