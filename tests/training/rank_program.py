"""A process of several: trains every family of the contracts for a few steps, and writes the weights that result."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.training import ranks
from tests.contracts.learners import learn, trainer
from tests.contracts.rows import FAMILIES, SPACES, examples

STEPS = 4


def weights(title: str, space: str) -> dict[str, torch.Tensor]:
    """The whole state after STEPS steps of eight examples in micro-batches of four."""
    row = next(r for r in FAMILIES if r.title == title)
    learner = trainer(row, SPACES[space])
    learner.config = learner.config.model_copy(update={"micro_batch": 4})
    learn(learner, Loader(examples(SPACES[space]), SPACES[space], Rng(0)), STEPS)
    groups = learner.snapshot().tensors
    return {
        f"{group}.{name}": v.contiguous().clone() for group, tensors in groups.items() for name, v in tensors.items()
    }


def every() -> list[tuple[str, str]]:
    return [(row.title, name) for row in FAMILIES for name in row.spaces]


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.join()
    for title, space in every():
        save_file(weights(title, space), Path(sys.argv[1]) / f"{title}-{space}-{ranks.rank()}.safetensors")
