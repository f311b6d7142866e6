"""Limits on what comes from outside: each is asked, and whatever a parser raises becomes a reason."""

from __future__ import annotations

import time

import pytest

from afresh.core import UserError
from afresh.data.files import FileError
from afresh.data.limits import CALLS, LimitExceeded, Limits, Meter, parsing


def test_as_much_as_the_limit_passes_and_one_more_does_not() -> None:
    meter = Meter(Limits(bytes=10, items=3))
    meter.add(bytes=10, items=3)
    with pytest.raises(LimitExceeded, match="items"):
        meter.add(items=1)
    with pytest.raises(LimitExceeded, match="MB"):
        Meter(Limits(bytes=10)).add(bytes=11)


def test_items_are_counted_before_they_are_given() -> None:
    given = []
    with pytest.raises(LimitExceeded):
        for text in Meter(Limits(bytes=5)).each(["ab", "cd", "ef"], len):
            given.append(text)
    assert given == ["ab", "cd"]


def test_the_clock_is_looked_at_inside_a_loop_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(time, "thread_time", clock)
    meter, count = Meter(Limits(seconds=3)), 0
    with pytest.raises(LimitExceeded, match="3 seconds"):
        while True:
            meter.add(items=1)
            count += 1
    assert count == 4 * CALLS - 1


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), OverflowError("year 10000"), KeyError("x")])
def test_whatever_a_parser_raises_is_a_reason(error: Exception) -> None:
    with pytest.raises(FileError, match="mail"), parsing("mail"):
        raise error


def test_errors_that_say_what_is_wrong_pass() -> None:
    for error in (FileError("own reason"), UserError("own reason"), LimitExceeded("own reason")):
        with pytest.raises(type(error), match=r"^own reason"), parsing("mail"):
            raise error
