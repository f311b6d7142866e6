"""Small objectives whose gradients are known, or are not finite on demand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Loss, Modules, Space, State
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training.checkpoint import Checkpoint
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner

WIDTH = 3
FIELD = Space("field", (WIDTH,))


def config(**overrides: Any) -> TrainConfig:
    base: dict[str, Any] = {"steps": 12, "batch": 4, "micro_batch": 4, "save_every": 4, "warmup": 0, "decay": 0.0}
    return TrainConfig(**{**base, "log_every": 5, "lr": 0.05, "ema_half_life": 20.0, **overrides})


def points(n: int = 10) -> Examples:
    return Examples(Rng(5).normal("points", torch.arange(n), (WIDTH,)), Cond(n))


class Squares:
    """`first` and, when there are two, `second` each learn a map of x to itself, applied after the other.

    `bad` maps (player, step) to what the loss is multiplied by there: nan or inf. A loss of `inf_plus` has an
    infinite value and a finite gradient.
    """

    averaged = ("first",)

    def __init__(self, players: int = 1, bad: Mapping[tuple[str, int], float] | None = None) -> None:
        names = ("first", "second")[:players]
        self.players: Mapping[str, tuple[str, ...]] = {n: (n,) for n in names}
        self.bad = dict(bad or {})
        self.inf_plus: set[int] = set()

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        x = batch.x + 0.1 * rng.normal("noise", batch.index, (WIDTH,))
        for name in self.players:
            x = modules[name](x)
        each = (x - batch.x).square().sum(1)
        total = each.sum() * self.bad.get((player, step), 1.0)
        if step in self.inf_plus:
            total = total + torch.tensor(torch.inf)
        return total, float(len(each)), {"error": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return {"seen": state.get("seen", torch.zeros((), dtype=torch.int64)) + 1}


def learner(objective: Squares, **overrides: Any) -> Learner:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    modules = {name: nn.Linear(WIDTH, WIDTH) for name in ("first", "second")[: len(objective.players)]}
    return Learner(modules, objective, config(**overrides))


def batches(config: TrainConfig) -> Any:
    return Loader(points(), FIELD, Rng(config.seed)).batch


def flat(saved: Checkpoint) -> dict[str, Tensor]:
    return {f"{g}/{k}": v.clone() for g, d in saved.tensors.items() for k, v in d.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Equal names, and bit-equal tensors of equal dtype."""
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)
