"""Time stamps in any unit and form are seconds since 1970."""

from __future__ import annotations

from datetime import time

import numpy as np
import pyarrow
import pytest

from afresh.data.tables.roles import clock_column
from afresh.data.tables.times import COUNTED, DATES, clock_time, clock_times, seconds

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


def test_every_form_of_a_time_of_day_is_seconds_since_midnight() -> None:
    forms = ["13:05", "13:05:00", "1:05 PM", "1:05pm", "13h05", "13:05 Uhr", time(13, 5)]
    assert [clock_time(f) for f in forms] == [13 * 3600 + 5 * 60] * len(forms)
    assert [clock_time(v) for v in ("25:00", "13:05 PM", "12:61", "2024-05-01", "1.5", 13, None)] == [None] * 7
    assert clock_times(pyarrow.array(["0:30", None, "noon"]))[0] == 1800
    assert np.isnan(clock_times(pyarrow.array(["0:30", None, "noon"]))[1:]).all()


def test_a_time_of_day_belongs_to_a_column_of_days_and_a_duration_does_not() -> None:
    table = {
        "Date": ["2024-05-01", "2024-05-02"],
        "Delivery time": ["16:00", "17:00"],
        "Order time": ["9:00", "10:00"],
        "Duration": ["00:40:00", "00:50:00"],
        "Played": ["2024-05-01 9:00", "2024-05-02 10:00"],
    }
    assert clock_column(list(table), "Date", table.__getitem__) == "Order time"
    assert clock_column(["Date", "Duration"], "Date", table.__getitem__) is None
    assert clock_column(list(table), "Played", table.__getitem__) is None  # has times of its own
