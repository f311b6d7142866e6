"""The precision of training is that in which steps of the learner are faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from afresh.core import Batch, Loss, Modules, State
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import precision
from afresh.engine.training.precision import StepSpeeds, fastest_precision
from tests.engine.training.toys import FIELD, Squares, learner, points


class Clock:
    """Clocks that stand still except during the steps of a `Slow` objective; other work slows only the first."""

    def __init__(self) -> None:
        self.now = self.work = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.work


class Slow(Squares):
    """Squares whose step takes `cost(precision)` seconds of work, and `busy(number of the step)` times that."""

    def __init__(self, clock: Clock, cost: Callable[[str], float], busy: Callable[[int], float]) -> None:
        super().__init__()
        self.clock, self.cost, self.busy, self.steps = clock, cost, busy, list[str]()

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        kind = "bfloat16" if torch.is_autocast_enabled("cpu") else "float32"
        self.clock.work += self.cost(kind)
        self.clock.now += self.busy(step) * self.cost(kind)
        self.steps.append(kind)
        return super().loss(modules, batch, player, step, rng, state)


def speeds(
    monkeypatch: pytest.MonkeyPatch,
    bfloat16: float,
    seconds: float = 1.0,
    threads: int = 1,
    busy: Callable[[int], float] = lambda step: 1.0,
) -> tuple[StepSpeeds, Slow]:
    """What is measured where a step takes 0.1 s in float32, and `bfloat16` seconds in bfloat16."""
    clock = Clock()
    monkeypatch.setattr(precision, "time", clock)
    objective = Slow(clock, lambda kind: bfloat16 if kind == "bfloat16" else 0.1, busy)
    learnt = learner(objective, threads=threads)
    out = fastest_precision(learnt, Loader(points(), FIELD, Rng(0), 4).batch, seconds)
    assert learnt.config.precision == "float32"  # as it was
    assert objective.steps.count("float32") == objective.steps.count("bfloat16")
    return out, objective


@pytest.mark.parametrize(("bfloat16", "chosen"), [(0.05, "bfloat16"), (0.089, "bfloat16"), (0.095, "float32")])
def test_bfloat16_must_be_a_tenth_faster(monkeypatch: pytest.MonkeyPatch, bfloat16: float, chosen: str) -> None:
    out, _ = speeds(monkeypatch, bfloat16)
    assert out.precision == chosen
    assert out.float32 == pytest.approx(0.1)
    assert out.halved == pytest.approx(bfloat16)
    assert out.seconds == pytest.approx(bfloat16 if chosen == "bfloat16" else 0.1)
    assert f"{1e3 * bfloat16:.3g} ms in bfloat16 and 100 ms in float32" in out.reason


@pytest.mark.parametrize("threads", [1, 2])
def test_first_steps_and_other_work_do_not_decide(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """The first two steps take very long, and from the seventh on the machine is three times slower."""
    out, _ = speeds(monkeypatch, 0.08, 2.0, threads, lambda step: 300.0 if step < 2 else 3.0 if step >= 6 else 1.0)
    assert out.ratio == pytest.approx(0.8)


def test_work_that_disturbs_every_second_step_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = speeds(monkeypatch, 0.08, busy=lambda step: 1.0 if step % 2 else 5.0)
    assert out.precision == "bfloat16"


def test_steps_longer_than_the_time_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, objective = speeds(monkeypatch, 0.2, 0.05)
    assert len(objective.steps) == 4  # one of each to warm up, one of each measured
