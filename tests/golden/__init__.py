"""Golden losses: 20 steps of every family, which a refactor must reproduce.

Data made by a formula, float32, one thread, a fixed seed. `python -m tests.golden` writes the files anew: do so only
for a change that is meant to change what is learnt, and say why in the commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from afresh.core import Cond, CondSpec, Examples, Part, Space, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.training.config import TrainConfig
from afresh.training.loop import take_step
from afresh.training.plan import make_learner

FOLDER = Path(__file__).parent
STEPS, BATCH, COUNT, CLASSES = 20, 8, 48, 3
CONDS: CondSpec = {"label": Part("label", classes=("a", "b", "c"))}
STREAM = Space("tokens", (16,), (13,), {"begin": 11, "end": 12}, stream=True)
PLANE = Space("field", (1, 8, 8), std=0.5)


@dataclass(frozen=True)
class Golden:
    """`tolerance`, relative, is twice or more what was seen between processors (Intel and AMD) and instruction sets
    (SSE4.1, AVX2, AVX-512): sums in float32 differ in their last bits, and 20 steps amplify it. Most in a flow, whose
    products are the longest, and in a GAN, as the first step of Adam without momentum is the sign of a gradient, which
    may be near 0. A rate wrong by 1% shows in every family: twice the tolerance or more."""

    space: Space
    config: Mapping[str, Any]
    tolerance: float
    train: Mapping[str, Any] = field(default_factory=dict)


ROWS = {
    "transformer": Golden(STREAM, {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2}, 1e-4),
    "masked": Golden(STREAM, {"width": 32, "layers": 2, "heads": 4}, 1e-4),
    "vae": Golden(PLANE, {"width": 8, "latent": 4, "cond": 8}, 1e-3, {"lr": 1e-2}),
    "gan": Golden(PLANE, {"width": 8, "latent": 4, "cond": 8}, 1e-3),
    "flow": Golden(PLANE, {"widths": (16, 32), "emb": 32}, 1e-3),
    "fewstep": Golden(PLANE, {"widths": (16, 32), "emb": 32, "finest": 2, "solves": 1}, 1e-3),
    "autoencoder": Golden(PLANE, {"width": 8, "factor": 2}, 1e-3),
}


def labels() -> Cond:
    rows = torch.arange(COUNT)
    return Cond(COUNT, {"label": rows % CLASSES}, {"label": torch.ones(COUNT, dtype=torch.bool)})


def waves() -> Examples:
    """Plane waves whose direction is the label and whose phase is the example, (COUNT, 1, 8, 8) of variance 1/4."""
    n, r, c = torch.meshgrid(torch.arange(COUNT), torch.arange(8), torch.arange(8), indexing="ij")
    angle = 2 * torch.pi * ((r * (n % CLASSES) + c) / 8 + n * 5 / COUNT)
    return Examples((angle.double().sin() / 2**0.5).float()[:, None], labels())


def squares() -> Examples:
    """Documents of 20 tokens k^2 + label k mod 11 and `end`."""
    n, k = torch.meshgrid(torch.arange(COUNT), torch.arange(21), indexing="ij")
    x = (k * k + (n % CLASSES + 1) * (k + n)) % 11
    x[:, -1] = STREAM.special["end"]
    return Examples(x.flatten().int(), labels(), bounds=torch.arange(COUNT + 1) * 21)


def losses(family: str) -> dict[str, list[float]]:
    """Every player's loss at each step, by the family's own recipe."""
    row, made = ROWS[family], registry.family(family)
    train = TrainConfig(
        **{
            **made.recipe,
            "steps": STEPS,
            "batch": BATCH,
            "micro": BATCH,
            "warmup": 4,
            "save_every": STEPS,
            "null_rate": 0.1,
            "ema_half_life": 40.0,
            "seed": 7,
            **row.train,
        }
    )
    learner = make_learner(made, made.config(**row.config), row.space, CONDS, train)
    loader, rng = Loader(squares() if row.space.stream else waves(), row.space, Rng(7)), Rng(7)
    out: dict[str, list[float]] = {}
    for learner.step in range(STEPS):
        metrics = take_step(learner, loader.batch(learner.step * BATCH, BATCH), rng)
        assert metrics is not None
        for name in metrics:
            if name.endswith("loss"):
                out.setdefault(name, []).append(metrics[name])
    return out


def stored(family: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((FOLDER / f"{family}.json").read_text())
    return found
