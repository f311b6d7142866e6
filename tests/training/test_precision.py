"""The precision of training is that in which steps of the learner are faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from afresh.core import Batch, Loss, Modules, State
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.training import precision
from afresh.training.precision import StepSpeeds, fastest_precision
from tests.training.toys import FIELD, Squares, learner, points


class Clock:
    """A clock that stands still except during the steps of a `Slow` objective."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Slow(Squares):
    """Squares whose step takes `cost(precision, number of the step)` seconds of the clock."""

    def __init__(self, clock: Clock, cost: Callable[[str, int], float]) -> None:
        super().__init__()
        self.clock, self.cost, self.steps = clock, cost, list[str]()

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        kind = "bfloat16" if torch.is_autocast_enabled("cpu") else "float32"
        self.clock.now += self.cost(kind, step)
        self.steps.append(kind)
        return super().loss(modules, batch, player, step, rng, state)


def speeds(
    monkeypatch: pytest.MonkeyPatch, cost: Callable[[str, int], float], seconds: float = 1.0
) -> tuple[StepSpeeds, Slow]:
    clock = Clock()
    monkeypatch.setattr(precision, "time", clock)
    objective, data = Slow(clock, cost), Loader(points(), FIELD, Rng(0), 4)
    found = learner(objective)
    out = fastest_precision(found, data.batch, seconds)
    assert found.config.precision == "float32"  # as it was
    return out, objective


@pytest.mark.parametrize(("bfloat16", "chosen"), [(0.05, "bfloat16"), (0.089, "bfloat16"), (0.095, "float32")])
def test_bfloat16_must_be_a_tenth_faster(monkeypatch: pytest.MonkeyPatch, bfloat16: float, chosen: str) -> None:
    out, _ = speeds(monkeypatch, lambda kind, step: bfloat16 if kind == "bfloat16" else 0.1)
    assert out.precision == chosen
    assert out.float32 == pytest.approx(0.1)
    assert out.bfloat16 == pytest.approx(bfloat16)
    assert out.seconds == pytest.approx(bfloat16 if chosen == "bfloat16" else 0.1)
    assert f"{1e3 * bfloat16:.3g} ms in bfloat16 and 100 ms in float32" in out.reason


def test_first_steps_and_other_work_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step in bfloat16 takes very long, and later the machine becomes three times slower for a while."""

    def cost(kind: str, step: int) -> float:
        busy = 3.0 if step >= 6 else 1.0
        return 30.0 if step < 2 and kind == "bfloat16" else busy * (0.08 if kind == "bfloat16" else 0.1)

    out, objective = speeds(monkeypatch, cost, 2.0)
    assert out.ratio == pytest.approx(0.8)
    assert objective.steps.count("float32") == objective.steps.count("bfloat16")


def test_steps_longer_than_the_time_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    out, objective = speeds(monkeypatch, lambda kind, step: 9.0 if kind == "bfloat16" else 5.0, 1.0)
    assert out.precision == "float32"
    assert len(objective.steps) == 4  # one of each to warm up, one of each measured
