"""Scores of generated sounds: a kernel audio distance, shares, and what every score stands between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.evaluation.distribution import distances
from afresh.evaluation.estimate import GROUPS, Array, Estimate, jackknife, leave_out, share

BESIDE = ("floor", "vocoded", "copies", "gaussian")


@dataclass(frozen=True)
class Mark:
    """A score of a model with its 95% interval, and the same score of what it stands between; None: has no meaning."""

    value: float
    low: float | None
    high: float | None
    n: int
    floor: float | None
    vocoded: float | None
    copies: float | None
    gaussian: float | None


def marks(own: dict[str, Estimate], beside: dict[str, dict[str, Estimate]]) -> dict[str, Mark]:
    """Scores by name with the same of the sets in `beside`, by the names of BESIDE, where these have one."""
    values = {k: [beside[b][k].value if k in beside[b] else None for b in BESIDE] for k in own}
    return {k: Mark(e.value, e.low, e.high, e.n, *values[k]) for k, e in own.items()}


def kad(x: Array, reference: Array) -> Estimate:
    """Kernel audio distance (Chung et al. 2025, eq. 5) of rows (N, D) from reference rows (M, D), without a factor.

    The unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under exp(-|a - b|^2 / (2 s^2)), s the
    median distance of the reference rows: 0 in expectation for equal distributions, so that it may be negative. The
    interval is a grouped jackknife over both samples, whose rows must be in random order; s stays. Raises ValueError
    for fewer than two rows, or when most reference rows are equal.
    """
    if min(len(x), len(reference)) < 2:
        raise ValueError(f"KAD needs at least 2 rows on both sides, not {len(x)} and {len(reference)}")
    apart = distances(reference, reference)
    width = float(np.median(apart[np.triu_indices(len(reference), 1)]))
    if width == 0:
        raise ValueError("half of the reference's distances are 0: there is no width for a kernel")
    xx, yy, xy = (np.exp(-np.square(d / width) / 2) for d in (distances(x, x), apart, distances(x, reference)))
    value, n = discrepancy(xx, yy, xy), min(len(x), len(reference))
    if n < 2 * GROUPS:
        return Estimate(value, None, None, n)
    pairs = zip(leave_out(len(x)), leave_out(len(reference)), strict=True)
    without = [discrepancy(xx[np.ix_(a, a)], yy[np.ix_(b, b)], xy[np.ix_(a, b)]) for a, b in pairs]
    return Estimate(value, *jackknife(value, without), n)


def discrepancy(xx: Array, yy: Array, xy: Array) -> float:
    """The U-statistic of kernel matrices within and between two samples, (N, N), (M, M) and (N, M)."""
    n, m = xy.shape
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def right(found: NDArray[np.int64], wanted: Sequence[int]) -> Estimate:
    return share(int((found == np.asarray(wanted)).sum()), len(wanted))


def thousand(e: Estimate) -> Estimate:
    low, high = (None if v is None else 1000 * v for v in (e.low, e.high))
    return Estimate(1000 * e.value, low, high, e.n, e.note)


def shown(marks: dict[str, Mark]) -> str:
    """A table: a line for every score."""
    lines = [f"{'':16}{'value':>10}  {'95% interval':^20}" + "".join(f"{b:>10}" for b in BESIDE)]
    for name, m in marks.items():
        between = "" if m.low is None or m.high is None else f"{m.low:.3f} .. {m.high:.3f}"
        rest = "".join(f"{'' if v is None else f'{v:.3f}':>10}" for v in (m.floor, m.vocoded, m.copies, m.gaussian))
        lines.append(f"{name:16}{m.value:10.3f}  {between:^20}{rest}")
    return "\n".join(lines)
