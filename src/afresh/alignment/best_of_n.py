"""Best of n: of several samples for one request the one with the highest reward is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afresh.alignment.rewards.reward import Reward, scorer_of
from afresh.core import Cond, UserError
from afresh.sampling.text_stream import Written

STRIDE = 1_000_000  # most samples of one call: candidate k of sample i is number i + k STRIDE, whatever n is
MOST = 10_000  # candidates of a sample
AT_ONCE = 256  # candidates that are drawn and kept side by side


@dataclass(frozen=True)
class Rows:
    """Samples of some requests: decoded, in the modality's space (B, ...), and why each text ended."""

    values: Sequence[Any]
    x: Tensor
    written: Sequence[Written] = ()


Draw = Callable[[Cond, Tensor], Rows]  # requests, and the numbers (B,) int64 of the samples


def check_best(best: int) -> None:
    """Raises UserError for a number of candidates that cannot be."""
    if not 1 <= best <= MOST:
        raise UserError(
            f"The best of how many? `best_of` takes 1 to {MOST:,} candidates for each sample. Given: {best}."
        )


def best_of(
    draw: Draw, cond: Cond, described: Sequence[Mapping[str, Any]], best: int, reward: Reward
) -> tuple[list[Rows], list[dict[str, Any]]]:
    """Of `best` candidates for each request the one of the highest reward (among equals the first), in parts, and
    what is told of each: its reward, and the mean of its candidates' rewards. Raises RewardError.

    Candidate 0 is the sample that is drawn without this, and the first b of more than b candidates are those of b.
    """
    score, parts, told = scorer_of(reward), [], []
    for rows in torch.arange(cond.size).split(max(1, AT_ONCE // best)):
        # Candidate by candidate: numbers rise, which is the order in which texts that were watched are given back.
        which = rows.repeat(best)
        numbers = which + STRIDE * torch.arange(best).repeat_interleave(len(rows))
        drawn = draw(cond.select(which), numbers)
        found = torch.from_numpy(score(drawn.values, [described[i] for i in which.tolist()])).view(best, len(rows))
        top = torch.tensor([int(column.argmax()) for column in found.T])  # the first of equals
        at = (top * len(rows) + torch.arange(len(rows))).tolist()
        written = [drawn.written[i] for i in at] if drawn.written else []
        parts.append(Rows([drawn.values[i] for i in at], drawn.x[at], written))
        told += [
            {"best_of": best, "best_by": reward.name, "candidate": k}
            | {"reward": float(of[k]), "reward_mean": float(of.mean())}
            for k, of in zip(top.tolist(), found.T, strict=True)
        ]
    return parts, told


def best_of_n_kl(n: int) -> float:
    """Nats between the base and the best of n samples of it: log n - (n - 1) / n.

    Exact where no two samples have the same reward (a density), otherwise an upper bound (Beirami et al. 2024,
    arXiv:2401.01879). Raises UserError unless n is 1 or more.
    """
    if n < 1:
        raise UserError(f"Best of {n}: n is the number of samples to choose among, 1 or more.")
    return math.log(n) - (n - 1) / n


def best_line(described: Sequence[Mapping[str, Any]]) -> str:
    """What choosing has gained, and how far it can have led from the model (Beirami et al. 2024)."""
    n, by = int(described[0]["best_of"]), described[0]["best_by"]
    kept, mean = (sum(d[k] for d in described) / len(described) for k in ("reward", "reward_mean"))
    return (
        f"best of {n} by {by}: mean reward {mean:.4g} -> {kept:.4g} (gain {kept - mean:.4g}), at most "
        f"{best_of_n_kl(n):.3g} nats from the model"
    )
