"""What a lane puts into one batch, and what it keeps apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core.solver_progress import Step, following
from afresh.engine.sampling.request import Request
from afresh.faces.http import batching as lanes
from afresh.faces.http.batching import Lane, alone
from afresh.runs.run import Run


class Watched:
    """A lane over a run on images that notes how many examples each of its batches has."""

    def __init__(self, path: Path) -> None:
        self.run, self.sizes = Run.open(path), list[int]()
        family, sample = self.run.family, self.run.family.sampling.sample

        def noting(*given: Any) -> Tensor:
            self.sizes.append(given[3].size)
            return sample(*given)

        self.run.family = replace(family, sampling=replace(family.sampling, sample=noting))
        self.expected = 0  # requests that come before the first batch
        self.lane = Lane(self.run)

    def gather(self) -> None:
        self.lane.changed.wait_for(lambda: len(self.lane.calls) >= self.expected, 60)
        self.expected = 0

    def draw(self, n: int, seed: int, **settings: Any) -> Tensor:
        """The samples of a request for n."""
        cond, _, _ = self.run.condition(n, Request(), seed)
        return self.lane.draw(self.run, cond, seed, self.run.settings({"steps": 4, **settings}), torch.arange(n))

    def at_once(self, *works: Callable[[], None]) -> None:
        """Do what each ask for one request, all of which come before the first batch."""
        self.expected = len(works)
        threads = [threading.Thread(target=copy_context().run, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    def crowd(self, *asked: dict[str, Any], apart: bool = False) -> list[Tensor]:
        """What requests that come at once get; `apart`: each asks to be alone."""
        found: dict[int, Tensor] = {}

        def ask(i: int) -> None:
            alone.set(apart)
            found[i] = self.draw(**asked[i])

        self.at_once(*(partial(ask, i) for i in range(len(asked))))
        return [found[i] for i in range(len(asked))]


@pytest.fixture
def watched(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    drop_cancelled = Lane._drop_cancelled

    def gather(lane: Lane) -> None:
        made.gather()
        drop_cancelled(lane)

    monkeypatch.setattr(Lane, "_drop_cancelled", gather)
    monkeypatch.setattr(lanes, "PROCESSORS", 1)
    made = Watched(runs / "digits")
    yield made
    made.lane.close()


def test_who_asks_to_be_alone_gets_the_bytes_of_one_who_is(watched: Watched) -> None:
    asked = [{"n": 2, "seed": 1}, {"n": 3, "seed": 2}, {"n": 1, "seed": 3}]
    single = [watched.draw(**a) for a in asked]
    watched.sizes.clear()
    together = watched.crowd(*asked, apart=True)
    assert all(torch.equal(a, b) for a, b in zip(single, together, strict=True))
    assert sorted(watched.sizes) == [1, 2, 3]
    watched.sizes.clear()
    watched.crowd(*asked)
    assert watched.sizes == [6]


def test_requests_with_other_settings_are_not_solved_together(watched: Watched) -> None:
    """What is alike shares a batch, whatever else is asked meanwhile; all get the samples of their own request."""
    asked = [
        {"n": 2, "seed": 1},
        {"n": 2, "seed": 2, "steps": 5},
        {"n": 1, "seed": 3},
        {"n": 1, "seed": 4, "guidance": 2.0},
    ]
    single = [watched.draw(**a) for a in asked]
    watched.sizes.clear()
    together = watched.crowd(*asked)
    for one, other in zip(single, together, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    assert sorted(watched.sizes) == [1, 2, 3]


def test_a_long_request_lets_others_have_their_turn(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "EXAMPLES", 2)
    order: list[int] = []

    def ask(n: int, steps: int) -> None:
        with following(lambda step: order.append(n) if step.done == step.total else None):
            watched.draw(n, 0, steps=steps)

    watched.at_once(partial(ask, 6, 4), partial(ask, 2, 5))
    assert sorted(order) == [2, 6, 6, 6] and order.index(2) <= 1


def test_examples_of_many_evaluations_are_not_waited_for_together(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "TOGETHER", 16)
    watched.draw(3, 0, steps=8)
    assert watched.sizes == [2, 1]


def test_steps_are_told_to_whom_they_concern(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is predicted is that of one's own samples, and says which of them."""
    monkeypatch.setattr(lanes, "EXAMPLES", 4)
    seen: dict[int, list[Step]] = {1: [], 2: []}
    shapes: list[tuple[int, int]] = []

    def ask(seed: int) -> None:
        def follow(step: Step) -> None:
            assert step.estimate is not None
            shapes.append((seed, len(step.estimate())))
            seen[seed].append(step)

        with following(follow):
            watched.draw(2 if seed == 1 else 5, seed)

    watched.at_once(*(partial(ask, seed) for seed in seen))
    assert [s.first for s in seen[1][:4]] == [0] * 4 and {n for s, n in shapes if s == 1} == {2}
    counts = {first: sum(s.first == first for s in seen[2]) for first in {s.first for s in seen[2]}}
    assert set(counts) == {0, 2} and all(count == 4 for count in counts.values())
    assert [n for s, n in shapes if s == 2] == [2] * 4 + [3] * 4


def test_a_lane_keeps_no_more_than_a_few_idle_batches(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has keys and values of what it drew last, and requests choose what they share."""
    monkeypatch.setattr(lanes, "KEPT_BATCHES", 1)
    run = Run.open(runs / "stories")
    lane = Lane(run)
    cond, _, _ = run.condition(1, Request("Once"), 0)
    for weights in ("float32", "auto", "bfloat16"):
        lane.draw(run, cond, 0, run.settings({"length": 3, "weights": weights}), torch.arange(1))
    assert len(lane.batches) == 2, "the newest idle one, and that of the last request"
    lane.close()


def test_a_failure_of_who_follows_is_theirs_alone(watched: Watched) -> None:
    failed: list[str] = []
    found: list[Tensor] = []

    def fails() -> None:
        def follow(step: Step) -> None:
            raise KeyError("mine")

        with following(follow), pytest.raises(KeyError, match="mine"):
            watched.draw(2, 1)
        failed.append("mine")

    watched.at_once(fails, lambda: found.append(watched.draw(2, 2)))
    assert failed and len(found[0]) == 2 and bool(found[0].isfinite().all()) and watched.sizes == [4]


def test_weights_that_cannot_be_had_fail_the_requests_for_them_and_no_other(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = watched.run.modules_for

    def modules_for(settings: Any) -> Any:
        if settings.steps == 5:
            raise MemoryError("too little")
        return have(settings)

    monkeypatch.setattr(watched.run, "modules_for", modules_for)
    failed: list[int] = []
    found: list[Tensor] = []

    def fails(seed: int) -> None:
        with pytest.raises(MemoryError, match="too little"):
            watched.draw(2, seed, steps=5)
        failed.append(seed)

    watched.at_once(partial(fails, 1), lambda: found.append(watched.draw(2, 2)), partial(fails, 3))
    assert sorted(failed) == [1, 3] and len(found[0]) == 2
