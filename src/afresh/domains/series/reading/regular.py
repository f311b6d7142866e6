"""Measurements at any times, to values at equal steps: the mean of those that belong to a step, and gaps elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.series.reading.step import MONDAY, WEEK, Floats, Step, written_time

SPARSE = 20  # steps for each measurement, beyond which the step cannot be meant
COARSER = 1.5  # a step that is so many times the usual difference collects what lies within it


@dataclass(frozen=True)
class Series:
    """A series of equal steps: values (columns, steps), NaN for missing ones; the first is at the place
    `first` of `step`. known: (columns known in advance, steps). doubled: measurements that share a step with others."""

    name: str
    step: Step
    first: float
    values: NDArray[np.float32]
    known: NDArray[np.float32]
    doubled: int = 0

    @property
    def length(self) -> int:
        return self.values.shape[1]

    def times(self, start: int, stop: int) -> Floats:
        """Seconds of the steps from `start` to before `stop`, which may lie beyond the end."""
        return self.step.times(self.first + np.arange(start, stop, dtype=np.float64))

    def written(self, start: int, stop: int) -> list[str]:
        """The same times as they are written in tables."""
        return [written_time(t, self.step.counted) for t in self.times(start, stop)]


def regular(name: str, times: Floats, values: Floats, known: Floats, step: Step, usual: float) -> Series:
    """The series of measurements at times (n,) in any order: values (n, C) and known (n, D).

    A step has the mean of the measurements that are nearest to it. Where the step is coarser than the `usual`
    difference of times in seconds, it has the mean of those from it to the next, and steps lie on whole ones since
    1970 (weeks begin on Mondays). Raises UserError where nearly all steps would be empty.
    """
    places = step.places(times)
    if not step.months and step.length > COARSER * usual > 0:
        shift = MONDAY / step.seconds if not step.counted and step.seconds % WEEK == 0 else 0.0
        places = np.floor(places - shift + 1e-9) + shift
    first = places.min()
    index = np.round(places - first).astype(np.int64)
    length = int(index.max()) + 1
    if length > SPARSE * len(times) + 1000:
        raise UserError(
            f"{name}: {len(times):,} measurements with a step of {step} leave {length:,} steps nearly all empty. Set "
            "`data.step` to the time between values, as 1h or 1D."
        )
    together = np.concatenate([values, known], 1)
    there = np.isfinite(together)
    sums, counts = np.zeros((length, together.shape[1])), np.zeros((length, together.shape[1]))
    np.add.at(sums, index, np.where(there, together, 0.0))
    np.add.at(counts, index, there)
    with np.errstate(invalid="ignore"):
        means = (sums / np.where(counts > 0, counts, np.nan)).T.astype(np.float32)
    c = values.shape[1]
    doubled = len(index) - len(np.unique(index))
    return Series(name, step, float(first), means[:c], means[c:], doubled)
