"""A process of several: trains every family of the contracts for a few steps, and writes the weights that result."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import ranks
from tests.contracts.learners import learn, trainer
from tests.contracts.rows import FAMILIES, SPACES, examples

STEPS = 4


def weights(title: str, space: str, batch: int) -> dict[str, torch.Tensor]:
    """The whole state after STEPS steps of `batch` examples in two micro-batches."""
    row = next(r for r in FAMILIES if r.title == title)
    learner = trainer(row, SPACES[space])
    learner.config = learner.config.model_copy(update={"batch": batch, "micro_batch": (batch + 1) // 2})
    learn(learner, Loader(examples(SPACES[space]), SPACES[space], Rng(0)), STEPS)
    groups = learner.snapshot().tensors
    return {
        f"{group}.{name}": v.contiguous().clone() for group, tensors in groups.items() for name, v in tensors.items()
    }


def every() -> list[tuple[str, str, int]]:
    """Each family with each space, and some with batches that two processes do not divide evenly."""
    rows = [(row.title, name, 8) for row in FAMILIES for name in row.spaces]
    odd = [(title, name, batch) for title, name, batch in rows if name in ("stream", "line")]
    return [*rows, *((title, name, batch) for title, name, _ in odd for batch in (2, 5, 7))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.join()
    for title, space, batch in every():
        name = f"{title}-{space}-{batch}-{ranks.rank()}.safetensors"
        save_file(weights(title, space, batch), Path(sys.argv[1]) / name)
