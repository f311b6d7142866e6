"""Which of several processes is named as slow, from given times."""

from __future__ import annotations

import random

from afresh.core.events import Event, listening
from afresh.engine.training.rank_pace import CHANCE, SLOWER, SlowRanks, paces_of

HOSTS = ["north", "north", "south", "south"]


def test_a_process_that_is_slower_each_time_is_named_once_with_its_host() -> None:
    slow, events = SlowRanks(), list[Event]()
    with listening(events.append):
        for measurement in range(1, 31):
            seconds = [0.1, 0.1, 0.1, 0.15]
            found = slow.add(seconds)
            slow.warn(paces_of(seconds, HOSTS, 8, found))
            assert found == ({3} if measurement >= slow.needed(4) else set())
    (event,) = events
    assert (event.kind, event.code) == ("warning", "slow_rank")
    assert event.fields == {"rank": 3, "host": "south", "seconds": 0.15, "others": 0.1}
    assert "Process 3 on south is slow" in event.text


def test_a_pause_now_and_then_names_nobody() -> None:
    slow = SlowRanks()
    for measurement in range(500):
        seconds = [0.1, 0.1]
        if measurement % 8 == 0:
            seconds[1] = 9.0
        if measurement % 8 == 5:
            seconds[1] = 0.1 * SLOWER
        assert not slow.add(seconds)


def test_a_process_that_recovers_is_no_longer_slow() -> None:
    slow = SlowRanks()
    for _ in range(slow.needed(2)):
        found = slow.add([0.2, 0.1])
    assert found == {0} and not slow.add([0.1, 0.1])


def test_two_of_many_can_be_slow() -> None:
    slow = SlowRanks()
    seconds = [0.1] * 64
    seconds[7], seconds[40] = 0.4, 0.13
    for _ in range(slow.needed(64)):
        found = slow.add(seconds)
    assert found == {7, 40}


def test_processes_that_are_alike_are_seldom_named_however_much_their_times_scatter() -> None:
    for processes in (2, 8, 32):
        rng, named, series = random.Random(0), 0, 2_000
        for _ in range(series):
            slow = SlowRanks()
            for _ in range(slow.needed(processes)):
                found = slow.add([rng.lognormvariate(0.0, 2.0) for _ in range(processes)])
            named += bool(found)
        assert named / series <= 2.0**-CHANCE


def test_each_has_the_part_of_the_batch_that_it_takes() -> None:
    paces = paces_of([1.0, 2.0, 3.0], ["a", "b", "c"], 8, {2})
    assert [p.share for p in paces] == [3 / 8, 3 / 8, 2 / 8]
    assert [(p.rank, p.host, p.slow) for p in paces] == [(0, "a", False), (1, "b", False), (2, "c", True)]
