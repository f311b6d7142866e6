"""Refinement: equal shares of the tasks, the law of a sample of a new network, and a system that is learnt."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.core import Batch, Cond, Part, Space
from afresh.core.rng import Rng
from afresh.engine.families import refiner
from afresh.engine.families.refiner import RefinerConfig, RefinerObjective, RefinerSettings
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step

SPACE = Space("field", (1, 16), axes=("x",), periodic=(True,), local=True)
SCALE = 0.5
CONDS = {"past": Part("aligned", shape=(1, 16), persists=True, std=SCALE)}


def small(**changes: object) -> RefinerConfig:
    return RefinerConfig(net="resnet", widths=(16,), blocks=2, emb=16, **changes)  # type: ignore[arg-type]


def told(past: Tensor) -> Cond:
    return Cond(len(past), {"past": past}, {"past": torch.ones(len(past), dtype=torch.bool)})


def test_deviations_fall_by_one_factor_to_the_least() -> None:
    torch.testing.assert_close(small(least=1e-3).deviation(torch.arange(4)), torch.tensor([0.0, 0.1, 0.01, 0.001]))


def test_each_task_has_an_equal_share_of_the_loss() -> None:
    """A new network answers nothing: the prediction costs the mean square of changes, here 4, each of K noises 1."""
    n, index = 8000, torch.arange(8000)
    past = Rng(0).normal("past", index, (1, 16))
    batch = Batch(past + 2 * SCALE * Rng(0).normal("x", index, (1, 16)), told(past), index)
    total, weight, _ = RefinerObjective(small(), SPACE).loss(
        refiner.build(small(), SPACE, CONDS), batch, "model", 0, Rng(0), {}
    )
    assert weight == n
    assert float(total.detach()) / n == pytest.approx((4 + 3) / 4, abs=0.05)


def test_a_sample_of_a_new_network_has_the_noise_of_all_refinements() -> None:
    config, index = small(least=0.125), torch.arange(4000)
    past = Rng(0).normal("past", index, (1, 16))
    modules = refiner.build(config, SPACE, CONDS)
    drawn = refiner.sample(modules, config, SPACE, told(past), Rng(0), index, RefinerSettings())
    expected = SCALE * math.sqrt(0.5**2 + 0.25**2 + 0.125**2)
    assert float((drawn - past).std()) == pytest.approx(expected, rel=0.02)
    alone = refiner.sample(modules, config, SPACE, told(past[7:8]), Rng(0), index[7:8], RefinerSettings())
    torch.testing.assert_close(drawn[7:8], alone)


@pytest.mark.slow
def test_refinements_lessen_the_error_of_small_amplitudes() -> None:
    """x' is x shifted by one point, with a tenth of a mode that is seen in it: samples are near the truth."""
    torch.manual_seed(0)
    config = small(least=0.02)
    learner = Learner(
        refiner.build(config, SPACE, CONDS),
        RefinerObjective(config, SPACE),
        TrainConfig(steps=600, batch=32, micro_batch=32, save_every=600, lr=4e-3, cond_dropout=0.0, decay=0.8),
    )

    def after(past: Tensor) -> Tensor:
        return past + SCALE * (past.roll(1, -1) - past)

    for step in range(600):
        index = torch.arange(32) + 32 * step
        past = Rng(1).normal("past", index, (1, 16))
        take_step(learner, Batch(after(past), told(past), index), Rng(0))
        learner.step += 1
    fresh = Rng(2).normal("past", torch.arange(64), (1, 16))
    drawn = refiner.sample(learner.modules, config, SPACE, told(fresh), Rng(3), torch.arange(64), RefinerSettings())
    error = (drawn - after(fresh)).square().mean().sqrt() / SCALE
    assert float(error) < 0.05
