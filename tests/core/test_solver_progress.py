"""Who follows the steps of a solver sees each of them, changes nothing, and can end it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Edit, events
from afresh.core import solver_progress as s
from afresh.core.solver_progress import Step, blocks, following, reporting
from afresh.engine.sampling.edit import edit
from afresh.engine.sampling.ode import SOLVERS, times

NOISE = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))


def to_one(x: Tensor, t: Tensor, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """The velocity of data that are all 1, at every time."""
    return (1 - x) / (1 - t[:, None]).clamp_min(1e-6), state


@pytest.mark.parametrize("solver", SOLVERS)
def test_followers_see_every_step_and_change_nothing(solver: str) -> None:
    seen: list[Step] = []

    def solve() -> Tensor:
        return SOLVERS[solver](to_one, NOISE, Cond(3), times(4))

    alone = solve()
    with following(seen.append), following(lambda step: step.estimate().zero_()):
        followed = solve()
    assert torch.equal(alone, followed)
    assert [(step.done, step.total) for step in seen] == [(i, 4) for i in range(1, 5)]
    assert all(torch.allclose(step.estimate(), torch.ones(3, 2), atol=1e-5) for step in seen)


def test_an_error_of_a_follower_ends_the_solver() -> None:
    calls = []

    def stop(step: Step) -> None:
        calls.append(step.done)
        if step.done == 2:
            raise KeyError

    with pytest.raises(KeyError), following(stop):
        SOLVERS["euler"](to_one, NOISE, Cond(3), times(9))
    assert calls == [1, 2] and s.follower() is None


@pytest.mark.parametrize(("strength", "resample"), [(1.0, 1), (0.5, 1), (1.0, 3)])
def test_an_edit_counts_all_its_steps(strength: float, resample: int) -> None:
    seen: list[Step] = []
    keep = torch.tensor([[True, False]]).expand(3, 2)
    task = Edit(torch.zeros(3, 2), strength, keep)

    def fresh(k: int, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape)

    with following(seen.append):
        edit(to_one, task, NOISE, Cond(3), lambda k: SOLVERS["ab2"], 10, resample=resample, fresh=fresh)
    assert [step.done for step in seen] == list(range(1, seen[-1].total + 1))


def test_progress_is_told_of_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[events.Event] = []
    for silent, count in ((60.0, 0), (0.0, 3)):
        monkeypatch.setattr(s, "SILENT_SECONDS", silent)
        with events.listening(told.append), reporting("drawing samples"):
            SOLVERS["heun"](to_one, NOISE, Cond(3), times(3))
        assert len(told) == count
    assert told[-1].text == "drawing samples: step 3 of 3" and told[-1].fields["ended"]


def test_blocks_that_take_long_tell_when_they_will_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[events.Event] = []
    now = iter(range(0, 100, 3))
    monkeypatch.setattr(s, "time", SimpleNamespace(monotonic=lambda: float(next(now))))
    with events.listening(told.append):
        assert list(blocks([1, 2, 3, 4], "encoding")) == [1, 2, 3, 4]
    assert [e.text for e in told] == [
        "encoding: 25%, about 18 s left",
        "encoding: 50%, about 9 s left",
        "encoding: 75%, about 4 s left",
    ]
    monkeypatch.setattr(s, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with events.listening(told.append):
        assert list(blocks([1, 2], "encoding")) == [1, 2]
    assert len(told) == 3
