"""Which items to measure next, from what is believed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from afresh.core import UserError

Array = NDArray[np.float64]
Acquisition = Literal["ei", "ucb", "thompson", "greedy"]

OPTIMISM = 2.0  # standard deviations of an upper bound
ALIKE = 0.9  # similarity from which on two items of a batch are too much alike, while there are others
TINY = 1e-12


@dataclass(frozen=True)
class Goal:
    """To maximise a number, to minimise it, or to come near a `target`."""

    maximise: bool = True
    target: float | None = None

    @staticmethod
    def of(maximise: bool | None, target: float | None) -> Goal:
        """The goal that was asked for: to maximise, if nothing was. Raises UserError if two were."""
        if maximise is not None and target is not None:
            asked = "maximise" if maximise else "minimise"
            raise UserError(f"`{asked}` and `target={target:g}` cannot both be wanted. Give one of them.")
        return Goal(maximise is not False, target)

    def worth(self, values: Array) -> Array:
        """The higher, the better."""
        if self.target is not None:
            return -np.abs(values - self.target)
        return values if self.maximise else -values

    def chance(self, mean: Array, sd: Array, best: float) -> Array:
        """The probability that normal values are worth more than `best`, a worth."""
        if self.target is None:
            return ndtr((self.worth(mean) - best) / sd)
        return ndtr((self.target - best - mean) / sd) - ndtr((self.target + best - mean) / sd)

    def improvement(self, mean: Array, sd: Array, best: float) -> Array:
        """The expected improvement on `best`, a worth (Jones et al. 1998, "Efficient global optimization", equation
        15; for a target, of the distance from it)."""
        if self.target is None:
            return above(self.worth(mean), sd, best)
        low, middle, high = (above(mean, sd, at) for at in (self.target + best, self.target, self.target - best))
        return np.maximum(low - 2 * middle + high, 0.0)

    def __str__(self) -> str:
        if self.target is not None:
            return f"near {self.target:g}"
        return "highest" if self.maximise else "lowest"


def above(mean: Array, sd: Array, floor: float) -> Array:
    """E[max(0, Y - floor)] of normal Y."""
    z = (mean - floor) / sd
    density = np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)
    return sd * (z * ndtr(z) + density)


Value = Callable[[Array, Array, Goal, float], Array]
VALUES: Mapping[str, Value] = {
    "ei": lambda mean, sd, goal, best: goal.improvement(mean, sd, best),
    "ucb": lambda mean, sd, goal, best: goal.worth(mean) + OPTIMISM * sd,
    "greedy": lambda mean, sd, goal, best: goal.worth(mean),
}


def acquired(how: Acquisition, mean: Array, variance: Array, goal: Goal, best: float) -> Array:
    """The value (m,) of measuring each item alone. For Thompson sampling, that of its upper bound, which says which
    items are worth drawing for together."""
    sd = np.sqrt(np.maximum(variance, TINY))
    return VALUES["ucb" if how == "thompson" else how](mean, sd, goal, best)


def batch_of(
    how: Acquisition,
    mean: Array,
    covariance: Array,
    noise: float,
    goal: Goal,
    best: float,
    count: int,
    alike: Array,
    seed: int,
) -> list[int]:
    """Indices of `count` of m items, in the order in which they are chosen.

    Each is the item of highest value once those before it are believed to measure their means ("kriging believer":
    Ginsbourger et al. 2010), so that the uncertainty that they share is spent; for Thompson sampling, each is the best
    of another joint draw. Items with a similarity `alike` (m, m) above ALIKE to a chosen one are passed over while
    there are others.
    """
    mean, covariance = mean.copy(), covariance.copy()
    free, apart = np.ones(len(mean), bool), np.ones(len(mean), bool)
    draws = drawn(mean, covariance, count, seed) if how == "thompson" else None
    chosen: list[int] = []
    while len(chosen) < min(count, len(mean)):
        if draws is not None:
            value = goal.worth(draws[len(chosen)])
        else:
            value = acquired(how, mean, covariance.diagonal(), goal, best)
        open_ = free & apart if (free & apart).any() else free
        at = int(np.where(open_, value, -np.inf).argmax())
        chosen.append(at)
        free[at] = False
        apart &= alike[at] < ALIKE
        best = max(best, float(goal.worth(mean[at : at + 1])[0]))
        row = covariance[at].copy()
        covariance -= np.outer(row, row) / (row[at] + noise + TINY)
    return chosen


def drawn(mean: Array, covariance: Array, count: int, seed: int) -> Array:
    """Joint draws (count, m) of a normal distribution."""
    spectrum, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(seed).standard_normal((count, len(mean)))
    return mean + noise @ (vectors * np.sqrt(np.maximum(spectrum, 0.0))).T
