"""Lengths of time as people write them."""

from __future__ import annotations

import pytest

from afresh.core import UserError
from afresh.core.minutes import minutes_of


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("2m", 2.0),
        ("2 min", 2.0),
        ("90s", 1.5),
        ("1h30m", 90.0),
        ("1 hour 30 minutes 6 s", 90.1),
        ("1.5H", 90.0),
    ],
)
def test_minutes_are_understood_with_and_without_units(given: float | str, minutes: float) -> None:
    assert minutes_of(given) == pytest.approx(minutes)


@pytest.mark.parametrize("given", ["", "soon", "2x", "1:30", "m", "2m soon", "0", "-3", "nan", "inf", -1, 0.0])
def test_other_words_are_refused_with_what_is_accepted(given: float | str) -> None:
    with pytest.raises(UserError, match=r"`budget.*Give minutes as a number .* units: 90s, 2m, 1h30m"):
        minutes_of(given, "budget")
