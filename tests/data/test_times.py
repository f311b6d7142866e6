"""Times of events in the forms in which logs have them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from afresh.data.times import moment_of, told_forms

NOON = 1_714_564_800.0  # 2024-05-01 12:00 UTC


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        int(NOON),
        str(int(NOON)),
        NOON * 1e3,
        NOON * 1e6,
        NOON * 1e9,
        "2024-05-01T12:00:00Z",
        "2024-05-01 12:00:00",
    ],
)
def test_one_moment_in_every_form(value: Any) -> None:
    found = moment_of(value)
    assert found is not None and found[0] == pytest.approx(NOON)


@pytest.mark.parametrize("value", ["2024/05/01 12:00", "2024-05-01T14:00:00+02:00"])
def test_other_dates(value: str) -> None:
    assert moment_of(value) == (NOON, "dates as text")


@pytest.mark.parametrize(
    "value", [None, "", "soon", "01/02/2024", float("nan"), float("inf"), -5, True, [1], "2024-13-01"]
)
def test_what_is_no_time(value: Any) -> None:
    """A day and a month whose order is a guess are none either."""
    assert moment_of(value) is None


def test_mixed_forms_are_said() -> None:
    assert told_forms(Counter(seconds=3)) == []
    assert "2 milliseconds" in told_forms(Counter(seconds=3, milliseconds=2))[0]
