"""Best of n: the sample with the highest reward of several samples for each request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.engine.alignment.rewards.reward import Reward, scorer_of

if TYPE_CHECKING:
    from afresh.engine.sampling.text_stream import Written

CANDIDATE_STRIDE = 1_000_000  # candidate k of sample i has the index i + k CANDIDATE_STRIDE, for any n
MAX_CANDIDATES = 10_000  # of each sample
BATCH_SIZE = 256  # candidates that are drawn together


@dataclass(frozen=True)
class Rows:
    """Samples for some requests: decoded, in the space of the modality (B, ...), and how texts ended."""

    values: Sequence[Any]
    x: Tensor
    written: Sequence[Written] = ()


Draw = Callable[[Cond, Tensor], Rows]  # requests, and the indices (B,) int64 of the samples


def check_best(best: int) -> None:
    """Raises UserError for a number of candidates out of range."""
    if not 1 <= best <= MAX_CANDIDATES:
        raise UserError(
            f"`best_of` is the number of candidates for each sample, from 1 to {MAX_CANDIDATES:,}. Given: {best}."
        )


def best_of(
    draw: Draw, cond: Cond, described: Sequence[Mapping[str, Any]], best: int, reward: Reward
) -> tuple[list[Rows], list[dict[str, Any]]]:
    """The candidate with the highest reward of `best` candidates for each request, the first among equal ones.

    Returns the samples in parts, and a record for each: its reward, and the mean reward of its candidates. Candidate 0
    is the sample that is drawn without `best_of`, and fewer candidates are always the first of more. Raises
    RewardError.
    """
    score, parts, candidates = scorer_of(reward), [], []
    for rows in torch.arange(cond.size).split(max(1, BATCH_SIZE // best)):
        # Indices rise, because texts that are observed while they are drawn are returned in the order of indices.
        which = rows.repeat(best)
        numbers = which + CANDIDATE_STRIDE * torch.arange(best).repeat_interleave(len(rows))
        drawn = draw(cond.select(which), numbers)
        rewards = torch.from_numpy(score(drawn.values, [described[i] for i in which.tolist()])).view(best, len(rows))
        top = torch.tensor([int(column.argmax()) for column in rewards.T])  # the first of equal rewards
        at = (top * len(rows) + torch.arange(len(rows))).tolist()
        written = [drawn.written[i] for i in at] if drawn.written else []
        parts.append(Rows([drawn.values[i] for i in at], drawn.x[at], written))
        candidates += [
            {"best_of": best, "best_by": reward.name, "candidate": k}
            | {"reward": float(of[k]), "reward_mean": float(of.mean())}
            for k, of in zip(top.tolist(), rewards.T, strict=True)
        ]
    return parts, candidates


def best_of_n_kl(n: int) -> float:
    """The divergence in nats of the best of n samples from the distribution of one sample: log n - (n - 1) / n.

    Exact if no two samples have the same reward, otherwise an upper bound (Beirami et al. 2024, arXiv:2401.01879).
    Raises UserError unless n is at least 1.
    """
    if n < 1:
        raise UserError(f"n is the number of samples to choose from, at least 1. Given: {n}.")
    return math.log(n) - (n - 1) / n


def best_line(described: Sequence[Mapping[str, Any]]) -> str:
    """A line with the gain in reward, and the upper bound of the divergence from the model (Beirami et al. 2024)."""
    n, by = int(described[0]["best_of"]), described[0]["best_by"]
    best, mean = (sum(d[k] for d in described) / len(described) for k in ("reward", "reward_mean"))
    return (
        f"best of {n} by {by}: mean reward {mean:.4g} -> {best:.4g} (gain {best - mean:.4g}), at most "
        f"{best_of_n_kl(n):.3g} nats from the model"
    )
