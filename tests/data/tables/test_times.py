"""Time stamps in any unit and form are seconds since 1970."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.data.tables.times import COUNTED, DATES, seconds

NOON = 1_714_564_800.0  # 2024-05-01 12:00 UTC


@pytest.mark.parametrize(
    "value",
    [NOON, NOON * 1e3, NOON * 1e6, NOON * 1e9, str(int(NOON)), str(int(NOON * 1e3)), "2024-05-01T12:00:00",
     "2024-05-01 12:00:00", "2024-05-01T14:00:00+02:00", "2024/05/01 12:00:00", "01.05.2024 12:00", "05/01/2024 12:00"],
)  # fmt: skip
def test_every_form_of_a_moment_is_the_same_number(value: float | str) -> None:
    found, units = seconds([value])
    assert found[0] == NOON and sum(units.values()) == 1


def test_small_numbers_are_kept_and_what_is_no_time_is_not_a_number() -> None:
    found, units = seconds(["3", "yesterday", "", None, "-5", "nan", "2024-05-01"])
    assert found[0] == 3 and np.isnan(found[1:6]).all() and found[6] == NOON - 12 * 3600
    assert units == {COUNTED: 1, DATES: 1}
