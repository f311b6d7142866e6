"""Numbers with 95% intervals, and the estimators that produce them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from afresh.core import Score

Z95 = 1.959963984540054  # two-sided 95% of a standard normal
GROUPS = 20  # of rows, for the grouped jackknife
RESAMPLES = 2000  # of the bootstrap
MANY_UNITS = 10_000  # from here on, the normal interval, to which the bootstrap's converges

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value from n units with its 95% interval. `note` states how it was computed, if that needs saying."""

    value: float
    low: float | None
    high: float | None
    n: int
    note: str = ""

    def score(
        self,
        name: str,
        better: Literal["lower", "higher", "none"],
        floor: float | None = None,
        control: float | None = None,
    ) -> Score:
        return Score(name, self.value, self.low, self.high, self.n, better, floor, control)


def share(hits: int, n: int) -> Estimate:
    """A binomial share with Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209). Raises ValueError if n
    is 0."""
    if n == 0:
        raise ValueError("a share needs n of at least 1")
    p, z2 = hits / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)))
    # For 0 and for n hits the exact ends are 0 and 1, which rounding errors would miss.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return Estimate(p, low, 1.0 if hits == n else min(1.0, middle + half), n)


def held_between(members: int, share: float) -> float:
    """The share of truths that lie within the central interval of a share of an ensemble whose truth could be one more
    member, for quantiles that are interpolated as `numpy.quantile` does by default.

    The k-th smallest of n members has k / (n + 1) of the truths below it.
    The quantile p lies (n - 1) p places above the smallest, so that share (n - 1) / (n + 1) are held: exactly if values
    are spread evenly between two members, and nearly otherwise. A share of 1 is the range of all members.
    """
    return share * (members - 1) / (members + 1)


def mean(values: Array) -> Estimate:
    """The mean of independent values (N,) with a normal interval, which ends at 0 if no value is below."""
    v, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(v, None, None, n)
    half = Z95 * float(np.std(values, ddof=1)) / n**0.5
    return Estimate(v, v - half if np.min(values) < 0 else max(0.0, v - half), v + half, n)


def ratio(top: Array, bottom: Array) -> Estimate:
    """The sum of `top` divided by the sum of `bottom`, both (N,) over independent units (documents, samples, blocks).

    Interval by linearisation (Cochran 1977, Sampling Techniques, eq. 6.13), the limit of resampling the units many
    times. Raises ValueError if `bottom` sums to 0.
    """
    n, total = len(top), float(np.sum(bottom))
    if total == 0:
        raise ValueError("the ratio's denominators sum to zero")
    r = float(np.sum(top)) / total
    if n < 2:
        return Estimate(r, None, None, n)
    residual = top - r * bottom
    half = Z95 * float(np.sqrt(n / (n - 1) * np.sum(residual**2))) / total
    return Estimate(r, r - half if np.min(top) < 0 else max(0.0, r - half), r + half, n)


def bootstrap(top: Array, bottom: Array | None = None, seed: int = 0) -> Estimate:
    """The sum of `top` divided by the sum of `bottom` (by default the mean), both (N,) over units, by resampling them.

    From the 2.5% to the 97.5% quantile of the resampled ratios (Efron and Tibshirani 1993, chapter 13). If a mean is 0
    or 1, where resampling gives no interval, Wilson's interval is used; for 10,000 units or more, that of `ratio`.
    Raises ValueError if `bottom` sums to 0.
    """
    n = len(top)
    parts = np.ones(n) if bottom is None else bottom
    estimate = ratio(top, parts)
    if n < 2 or n >= MANY_UNITS:
        return estimate
    if estimate.value in (0.0, 1.0):
        return share(round(estimate.value) * n, n)
    generator, ratios = np.random.default_rng(seed), []
    for size in np.diff([*range(0, RESAMPLES, 200), RESAMPLES]):
        rows = generator.integers(0, n, (size, n))
        ratios.append(top[rows].sum(1) / parts[rows].sum(1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return Estimate(estimate.value, float(low), float(high), n)


def jackknife(value: float, without: Sequence[float]) -> tuple[float, float]:
    """The interval around `value`, from the statistic without each of G groups of rows.

    Delete-a-group jackknife (Shao and Tu 1995, The Jackknife and Bootstrap, section 2.3). Unlike the bootstrap, it does
    not repeat rows, which would bias distances between samples upwards.
    """
    t = np.asarray(without, dtype=np.float64)
    g = len(t)
    half = Z95 * float(np.sqrt((g - 1) / g * np.sum((t - t.mean()) ** 2)))
    return value - half, value + half


def leave_out(n: int, groups: int = GROUPS) -> list[NDArray[np.bool_]]:
    """For each group, a mask (n,) of the rows outside of it. Row i belongs to group i modulo `groups`."""
    place = np.arange(n) % groups
    return [place != g for g in range(groups)]
