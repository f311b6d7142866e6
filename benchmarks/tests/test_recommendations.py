"""What is asked follows what may be learnt from, and peers get what baselines get."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recommend.recommendations import InOrder, arrays
from benchmarks.recommend.sets import Log, in_time, last_events, leave_one_out


def drawn(users: int = 40) -> Log:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 12, users)
    histories = [generator.integers(0, 30, n) for n in sizes]
    return Log(30, histories, [np.sort(generator.integers(0, 1000, n)).astype(float) for n in sizes])


def test_the_last_event_and_the_last_but_one() -> None:
    log = Log(9, [np.array([1, 2, 3, 4]), np.array([5, 6])])
    test, validation = last_events(log, 1), last_events(log, 2)
    assert [h.tolist() for h in test.histories] == [[1, 2, 3], [5, 6]]  # the short one is learnt from alone
    assert [h.tolist() for h in validation.histories] == [[1, 2], [5, 6]]
    assert (test.targets.tolist(), validation.targets.tolist(), test.users.tolist()) == ([4], [3], [0])


@pytest.mark.parametrize("each", [True, False])
def test_nothing_that_is_learnt_is_later_than_what_is_asked(each: bool) -> None:
    log = drawn()
    task = in_time("drawn", log, each)
    for asked in (task.validation, task.test):
        assert asked.times is not None and len(asked.targets) == len(asked.questions) == len(asked.users) > 0
        assert all(len(q) for q in asked.questions)
        assert each or len(set(asked.users)) == len(asked.users)
    last = max(t.max() for t in task.test.times or [])
    later = [(u, p) for u, t in enumerate(log.times or []) for p in np.flatnonzero(t > last) if p]
    if each:  # in the order of users, every later event that has one before it
        assert task.test.users.tolist() == [u for u, _ in later]
        assert task.test.targets.tolist() == [log.histories[u][p] for u, p in later]
    assert sum(map(len, task.validation.histories)) < sum(map(len, task.test.histories))


def test_peers_are_given_the_same_task() -> None:
    task = leave_one_out("drawn", drawn())
    flat = arrays(task)
    for name, asked in (("validation", task.validation), ("test", task.test)):
        for key, lists in (("histories", asked.histories), ("questions", asked.questions)):
            found = np.split(flat[f"{name}_{key}"], flat[f"{name}_{key}_ends"][:-1])
            assert [h.tolist() for h in found] == [h.tolist() for h in lists]
        assert flat[f"{name}_targets"].tolist() == asked.targets.tolist()


def test_stored_scores_come_in_their_order() -> None:
    scores = np.arange(12, dtype=np.float32).reshape(4, 3)
    scorer = InOrder(scores)
    found = [scorer([np.array([0])] * n) for n in (1, 3)]
    assert np.array_equal(np.concatenate(found), scores)
