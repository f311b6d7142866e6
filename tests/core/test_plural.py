"""Numbers of things in messages."""

from __future__ import annotations

from afresh.core.plural import counted


def test_one_is_singular_and_all_else_plural() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1006)] == ["0 steps", "1 step", "2 steps", "1,006 steps"]
    assert [counted(n, "copy", "copies") for n in (1, 2)] == ["1 copy", "2 copies"]
