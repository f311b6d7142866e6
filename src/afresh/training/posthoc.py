"""Averages of weights whose length is chosen after training (Karras et al. 2024, arXiv:2312.02696, sec. 3).

A power-function average after t steps weighs the weights after step s by s^gamma, so that it always looks back over
the same share of the run. Its length is told as sigma_rel: the standard deviation of that weighting over t. Two such
averages are tracked while training and their snapshots kept; any other one is, nearly, a sum of snapshots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError

LENGTHS = (0.05, 0.10)  # sigma_rel of the two that are tracked, as in the paper
SHORTEST, LONGEST = 0.01, 0.28  # sigma_rel; at 0.289 = 1/sqrt(12) all steps weigh the same
TRIED = (0.03, 0.05, 0.08, 0.12, 0.18)  # what is compared when the length is to be chosen by the held-out loss
MOST_ERROR = 0.15  # of a reconstruction (see `reconstruct`) that is still called by its length

Array = NDArray[np.float64]
Snapshot = tuple[int, float]  # the step that it is of, and the length of the average that it is a snapshot of


@lru_cache(maxsize=256)
def exponent(length: float) -> float:
    """gamma of a length sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^-(1/2) (Karras et al. 2024, sec. 3.1,
    solved for gamma as in their app. C). Raises UserError for a length outside SHORTEST ... LONGEST."""
    if not SHORTEST <= length <= LONGEST:
        raise UserError(
            f"The length of an average is from {SHORTEST:g} to {LONGEST:g} of the run (sigma_rel). Given: {length:g}."
        )
    t = length**-2
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def power_keep(length: float, step: int) -> float:
    """Factor kept of the average at `step`, counted from 1: (1 - 1 / step)^(gamma + 1) (sec. 3.1)."""
    return float((1.0 - 1.0 / step) ** (exponent(length) + 1.0))


def weights_of(length: float, steps: int) -> Array:
    """(steps,): how much the weights after step 1, 2, ... count in the average after `steps`.

    What `power_keep` amounts to: (s^(gamma + 1) - (s - 1)^(gamma + 1)) / steps^(gamma + 1), the products telescope.
    """
    return np.diff((np.arange(steps + 1) / steps) ** (exponent(length) + 1.0))


def reach(snapshots: Sequence[Snapshot], step: int) -> tuple[float, float] | None:
    """The shortest and the longest of the hundredths between SHORTEST and LONGEST that can be reconstructed."""
    lengths = [n / 100 for n in range(round(100 * SHORTEST), round(100 * LONGEST) + 1)]
    good = [n for n in lengths if snapshots and reconstruct(snapshots, step, n)[1] <= MOST_ERROR]
    return (min(good), max(good)) if good else None


def snapshot_due(step: int, steps: int, count: int) -> bool:
    """Whether one of `count` snapshots, spread evenly over `steps`, is of this step; the last one is of the last."""
    return step * count // steps > (step - 1) * count // steps


def product(a: Snapshot, b: Snapshot) -> float:
    """Integral over time of the product of two weightings, 1/steps (Karras et al. 2024, app. C)."""
    (t, g), (u, h) = ((step, exponent(length)) for step, length in (a, b))
    if t > u:
        (t, g), (u, h) = (u, h), (t, g)
    return (g + 1) * (h + 1) / ((g + h + 1) * u) * math.exp(h * math.log(t / u))


def reconstruct(snapshots: Sequence[Snapshot], step: int, wanted: float) -> tuple[Array, float]:
    """The sum of snapshots that comes nearest to the average of length `wanted` at `step`.

    Returns the factor of each snapshot, (S,), and the error: the root of the squared difference of the two
    weightings over that of the wanted one, 0 where it is met exactly. The factors solve the least squares of Karras
    et al. 2024 (app. C), here under the condition that they sum to 1, so that weights that stand still
    come out as they are. Raises ValueError without snapshots.
    """
    if not snapshots:
        raise ValueError("nothing to reconstruct from: there are no snapshots")
    n, target = len(snapshots), (step, wanted)
    whole = product(target, target)
    a = np.array([[product(s, r) for r in snapshots] for s in snapshots]) / whole
    b = np.array([product(s, target) for s in snapshots]) / whole
    system = np.block([[a, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])  # a Lagrange multiplier last
    x = np.linalg.lstsq(system, np.append(b, 1.0), rcond=None)[0][:n]
    return x, float(np.sqrt(max(0.0, 1.0 - 2.0 * x @ b + x @ a @ x)))
