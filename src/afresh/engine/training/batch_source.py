"""The interface between the training loop and the data or rewards that a run learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from afresh.core import Batch, Examples, Objective, Space
from afresh.core.rng import Rng
from afresh.data.load import rows_at_once, sweep
from afresh.engine.training import ranks
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.network import precision

EVALUATED = 2048  # examples or windows of an evaluation, at most; a fiftieth of those trained on if that is less


class BatchSource(Protocol):
    """The source of batches and evaluations for the training loop.

    Implemented for data sets (verbs/data_source.py), and for rewards and votes (alignment/alignment_batches.py).
    """

    @property
    def space(self) -> Space: ...
    @property
    def train(self) -> Examples: ...  # the training split in `space`

    def learner(self) -> Learner: ...  # restored from the newest checkpoint
    def batches(self, learner: Learner) -> Callable[[int, int], Batch]: ...  # (first draw, number of draws) -> batch
    def evaluate(self, learner: Learner) -> dict[str, float]: ...  # also stores the best weights so far
    def stop_reason(self, learner: Learner) -> str: ...  # why training should end, or ""; called after each evaluation
    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None: ...  # better weights, and why
    def logged(self, metrics: Mapping[str, float]) -> dict[str, float]: ...  # the metrics to write to metrics.jsonl
    def may_checkpoint(self, step: int) -> bool: ...
    def finish(self, learner: Learner) -> None: ...  # after the last step
    def close(self) -> None: ...


def most_evaluated(learner: Learner) -> int:
    """How many held-out examples or windows an evaluation looks at, at most."""
    return max(64, min(EVALUATED, learner.config.steps * learner.config.batch // 50))


def heldout_batches(learner: Learner, heldout: Examples, space: Space) -> Iterator[Batch]:
    """The held-out examples of an evaluation, as many at once as without gradients fit the memory."""
    # A few times the examples of a micro-batch fit where the device's memory is short.
    rows = rows_at_once(heldout, space, 64 if learner.fitting is None else min(64, 4 * learner.fitting))
    return sweep(heldout, space, rows, most_evaluated(learner))


@torch.no_grad()
def loss_of(learner: Learner, objective: Objective, batch: Batch) -> tuple[Tensor, Tensor]:
    """The objective on held-out examples, always with the same noise, and its weight."""
    player = next(iter(objective.players))
    with precision(learner.config):
        batch = batch.to(learner.config.device)
        loss, weight, _ = objective.loss(learner.modules, batch, player, learner.step, Rng(0), learner.state)
    return loss.float(), torch.as_tensor(weight, dtype=torch.float32, device=loss.device)


def heldout_loss(learner: Learner, objective: Objective, heldout: Examples, space: Space) -> float:
    """The mean of the objective over held-out examples. Processes that train together divide the batches."""
    losses, weights = list[Tensor](), list[Tensor]()
    with averaged(learner):
        for number, batch in enumerate(heldout_batches(learner, heldout, space)):
            if not ranks.mine(number):
                losses.append(torch.zeros((), device=learner.config.device))
                weights.append(losses[-1])
                continue
            loss, w = loss_of(learner, objective, batch)
            losses.append(loss)
            weights.append(w)
    total = weight = 0.0  # read at the end, since each transfer from a device stalls it
    both = [torch.stack(losses), torch.stack(weights)]
    ranks.add_up(both, 0.0)  # of each batch, one process has other numbers than 0
    for loss_sum, w in zip(*(t.tolist() for t in both), strict=True):
        total, weight = total + loss_sum, weight + w
    return total / weight
