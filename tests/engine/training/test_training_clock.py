"""Keeping a budget in minutes: the number of steps follows the speed, and the learning rate does not jump."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from afresh.core.events import Event, listening
from afresh.engine.training.loop import Hooks, Learner, replan
from afresh.engine.training.progress import ProgressMeter
from afresh.engine.training.schedule import rate, share_left
from afresh.engine.training.training_clock import Clock, StepsForDeadline, compared
from tests.engine.training.toys import Squares
from tests.engine.training.toys import learner as toy_learner


@dataclass
class Machine:
    """A clock on which steps take as long as `seconds` says."""

    seconds: Callable[[float], float]
    at: float = 0.0
    events: list[Event] = field(default_factory=list)

    def train(self, steps: int, deadline: float) -> SimpleNamespace:
        """Take steps until the last one, with the number of steps following the speed."""
        with listening(self.events.append):
            meter = ProgressMeter(steps, "images", 1.0, "toy", now=lambda: self.at, window=0.1 * deadline)
            follow = StepsForDeadline(deadline, meter, now=lambda: self.at)
            learner = SimpleNamespace(step=0, config=SimpleNamespace(steps=steps))
            with meter:
                while learner.step < learner.config.steps:
                    total = follow(cast(Learner, learner))
                    learner.config.steps = learner.config.steps if total is None else total
                    self.at += self.seconds(self.at)
                    learner.step += 1
                    meter.step({"loss": 1.0}, learner.step)
        return learner


@pytest.mark.parametrize(
    "seconds",
    [
        lambda now: 0.1,  # as planned
        lambda now: 0.1 if now < 50 else 0.2,  # half of the machine is taken in the middle
        lambda now: 0.1 if now < 85 else 0.3,  # and near the end
        lambda now: 0.4 if now < 30 else 0.1,  # or given back
        lambda now: 0.37,  # four times slower than planned
        lambda now: 0.1 + 0.08 * (int(now * 7) % 3),  # uneven
    ],
)
def test_training_ends_with_the_minutes_whatever_the_machine_does(seconds: Callable[[float], float]) -> None:
    machine = Machine(seconds)
    machine.train(1000, 100.0)
    assert machine.at == pytest.approx(100.0, rel=0.03)


def test_large_changes_are_reported_once() -> None:
    machine = Machine(lambda now: 0.1 if now < 50 else 0.2)
    machine.train(1000, 100.0)
    notes = [e for e in machine.events if e.code == "replanned"]
    assert 1 <= len(notes) <= 4 and "instead of 1,000" in notes[0].text
    steady = Machine(lambda now: 0.1)
    steady.train(1000, 100.0)
    assert not [e for e in steady.events if e.code == "replanned"]


def test_a_machine_that_is_far_slower_than_planned_is_told_once() -> None:
    slow = Machine(lambda now: 0.37)
    slow.train(1000, 100.0)
    (said,) = [e for e in slow.events if e.kind == "warning"]
    assert re.search(r"About 2\d\d steps fit the time instead of 1,000", said.text)
    uneven = Machine(lambda now: 0.1 + 0.08 * (int(now * 7) % 3))
    uneven.train(1000, 100.0)
    assert not [e for e in uneven.events if e.kind in ("note", "warning") and not e.detail]


def test_the_rate_is_continuous_where_the_number_of_steps_changes() -> None:
    shape: tuple[int, float, float] = (10, 0.6, 0.02)
    before = [rate(s, 1000, *shape) for s in range(701)]
    left = share_left(700, 1000, 0, 1.0)
    after = [rate(s, 850, *shape, 700, left) for s in range(700, 850)]
    assert left == pytest.approx(0.3)
    assert after[0] == pytest.approx(before[700])
    assert all(a >= b for a, b in zip(after, after[1:], strict=False))
    assert rate(850, 850, *shape, 700, left) == pytest.approx(0.02)
    assert after[-1] < 0.03


def test_a_changed_number_of_steps_survives_a_checkpoint() -> None:
    learner = toy_learner(Squares(), steps=100)
    learner.step = 40
    replan(learner, Hooks(replan=lambda now: 70))
    assert (learner.config.steps, learner.since, learner.left) == (70, 40, pytest.approx(0.6))
    other = toy_learner(Squares(), steps=100)
    other.restore(learner.snapshot())
    assert (other.config.steps, other.since, other.left) == (70, 40, learner.left)
    replan(other, Hooks(replan=lambda now: 3))  # never fewer than the step that comes
    assert other.config.steps == 41


def test_the_minutes_of_a_command_include_reading_and_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Any = SimpleNamespace(at=1000.0)
    monkeypatch.setattr("afresh.engine.training.training_clock.time", SimpleNamespace(monotonic=lambda: now.at))
    plain, measured = Clock(1000.0), Clock(1000.0, measuring=True)
    assert plain.training_end(10) == pytest.approx(1000 + 0.98 * 600)
    assert measured.training_end(10) == pytest.approx(1000 + 0.98 * 600 - 90)
    assert measured.training_end(1) == pytest.approx(1000 + 0.83 * 60)
    assert measured.training_end(1, fits=True) == pytest.approx(1000 + 0.73 * 60)
    assert plain.training_end(10, fits=True) == pytest.approx(1000 + 0.98 * 600 - 10)
    assert measured.after_training(10, measuring=14.0) == pytest.approx(0.02 * 600 + 20), "with the report"
    assert measured.after_training(10, measuring=1e6) == measured.after_training(10)
    now.at = 1000 + 50  # reading took most of the minute: training still gets a part of it
    assert measured.training_end(1) == pytest.approx(now.at + 24)


def test_an_overrun_is_said_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = Clock(1000.0, measuring=True), SimpleNamespace(at=1010.0)
    monkeypatch.setattr("afresh.engine.training.training_clock.time", SimpleNamespace(monotonic=lambda: now.at))
    assert compared(clock.all_seconds(1.0), 1.0) == "1:00", "reading and planning took 10 s"
    now.at = 1040.0
    assert compared(clock.all_seconds(1.0), 1.0) == "1:14 instead of 1:00", "training keeps its least share"
    assert compared(62.0, 1.0) == "1:02" and compared(104.0, 1.0) == "1:44 instead of 1:00"
