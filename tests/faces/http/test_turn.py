"""Turns of requests that compute outside of a lane: one at a time, in order, and none waits for another to end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from afresh.core.solver_progress import step
from afresh.faces.http import turn
from afresh.faces.http.batching import Cancelled
from afresh.faces.http.turn import Turns

STEPS = 4


def begun(turns: Turns, waiting: int, work: Callable[[], None]) -> threading.Thread:
    """A thread that does the work, when so many compute or wait."""
    thread = threading.Thread(target=work)
    thread.start()
    while len(turns.queue) < waiting:
        pass
    return thread


@pytest.mark.parametrize(("slice_", "order"), [(60.0, "aaaabbbb"), (0.0, "abababab")])
def test_who_takes_long_lets_others_compute_between_two_steps(
    slice_: float, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "SLICE", slice_)
    turns, done, ready = Turns(), list[str](), threading.Event()

    def work(name: str) -> None:
        with turns.taken(threading.Event()):
            for k in range(STEPS):
                if (name, k) == ("a", 0):
                    assert ready.wait(20)
                done.append(name)
                step(k + 1, STEPS)

    threads = [begun(turns, 1, lambda: work("a")), begun(turns, 2, lambda: work("b"))]
    ready.set()
    for thread in threads:
        thread.join(20)
    assert "".join(done) == order and not turns.queue


def test_steps_that_another_thread_takes_for_a_request_do_not_pass_its_turn_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread of a lane would wait for a turn, and everybody for the lane."""
    monkeypatch.setattr(turn, "SLICE", 0.0)
    from contextvars import copy_context

    turns, first, second = Turns(), threading.Event(), threading.Event()
    with turns.taken(first):
        turns.queue.append(second)
        lane = threading.Thread(target=copy_context().run, args=(step, 1, 2))
        lane.start()
        lane.join(20)
        assert not lane.is_alive() and list(turns.queue) == [first, second]
        turns.queue.remove(second)


def test_nobody_waits_for_the_turn_of_a_client_that_has_left() -> None:
    turns, gone = Turns(), threading.Event()
    ended = threading.Event()

    def leave() -> None:
        with pytest.raises(Cancelled), turns.taken(gone):
            pass
        ended.set()

    with turns.taken(threading.Event()):
        thread = begun(turns, 2, leave)
        gone.set()
        assert ended.wait(20)
        assert len(turns.queue) == 1
    thread.join(20)
    assert not turns.queue
