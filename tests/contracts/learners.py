"""Learners of each row of the contracts, as tests and benchmarks train them."""

from __future__ import annotations

from typing import Any

from afresh.core import Family, Space
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import make_learner
from tests.contracts.rows import FamilyRow


def configured(row: FamilyRow, space: Space | None = None) -> tuple[Family, Any]:
    family = row.family(space)
    return family, family.config(**row.config)


def trainer(row: FamilyRow, space: Space, seed: int = 0) -> Learner:
    """A new learner by the recipe of the family, but with eight steps of eight examples."""
    family, config = configured(row, space)
    own = {
        **family.plan.recipe(space),
        "steps": 8,
        "batch": 8,
        "micro_batch": 8,
        "save_every": 8,
        "ema_half_life": 50.0,
        "warmup": 2,
    }
    return make_learner(family, config, space, row.conds, TrainConfig(**own, cond_dropout=0.2, seed=seed))


def learn(learner: Learner, loader: Loader, steps: int) -> None:
    for _ in range(steps):
        batch = loader.batch(learner.step * learner.config.batch, learner.config.batch)
        assert take_step(learner, batch, Rng(1)) is not None
        learner.step += 1
