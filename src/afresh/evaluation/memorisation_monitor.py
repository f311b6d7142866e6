"""Training ends when samples become copies of training examples.

At evaluations a few samples are drawn as a user would draw them. A near copy is nearer to a training example than 99%
of examples that were not trained on are (measure/memorisation.py). The number of near copies among n samples is
binomial: training ends when the lower end of the share's interval is above `train.memorisation_limit` twice in a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from afresh.core import Examples, events
from afresh.core.rng import Rng
from afresh.data.load import draw_conditions
from afresh.evaluation.distribution import distances
from afresh.evaluation.estimate import Array
from afresh.evaluation.gallery import seen
from afresh.evaluation.memorisation import near_copies, nearest
from afresh.runs.run import Run
from afresh.training.loop import Learner, averaged
from afresh.training.weights import adapters_merged

FIRST, SAMPLES = 16, 64  # drawn at first, and altogether where one of these is a near copy
TWICE = 2  # looks in a row that must agree
COST = 0.05  # of the training time that looking may take
SIDE = 16  # pixels: pictures are compared as means of cells, at most so many along the longer side
OTHERS = 256  # examples not trained on that say how near is near; where fewer are held out, training examples to others
ENOUGH = 100  # held-out examples that say it alone: the hundredth of fewer is not known
SEED = 1_000_211  # of these samples: not those of a preview, nor those that are judged
COPIES, LOW = "near_copies", "near_copies_low"  # in metrics.jsonl


def ends(lows: Sequence[float], limit: float) -> bool:
    """Whether training is to end: each of the last TWICE lower bounds of the share of near copies is above `limit`.
    A limit of 0 never ends it."""
    return limit > 0 and len(lows) >= TWICE and min(lows[-TWICE:]) > limit


def small(x: Tensor) -> Array:
    """Fields (N, C, *grid) as vectors (N, D): means over cells, so that a shift in noise is no difference."""
    grid = x.shape[2:]
    factor = -(-max(grid, default=1) // SIDE)
    if factor > 1:
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(grid)]
        x = pool(x, [min(factor, g) for g in grid], ceil_mode=True, count_include_pad=False)
    return np.asarray(x.flatten(1).cpu().numpy())  # float32: kept small; distances are in float64


def vectors(examples: Examples, timed: bool = False) -> Array:
    """Every example of a field as `small` sees it; where an axis is time, the spectra of waves."""
    parts = (p.float() * examples.scale + examples.shift for p in examples.x.split(1024))
    return np.concatenate([small(seen(p) if timed else p) for p in parts])


def spread_over(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of n rows, evenly spread."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def not_trained_on(train: Array, heldout: Array) -> Array:
    """How far examples are from the nearest of the training split that is not themselves, (M,).

    Held-out examples; where they are fewer than ENOUGH, training examples to the nearest other as well. Where even
    these are fewer, their hundredth is not known, and all are halved: a right model has samples nearer than all of m
    such distances in 1 of m + 1 cases, and blurred ones more often.
    """
    held = nearest(heldout[spread_over(len(heldout), OTHERS)], train)
    if len(held) >= ENOUGH or len(train) < 2:
        return held
    left_out = [np.partition(distances(train[i : i + 1], train)[0], 1)[1] for i in spread_over(len(train), OTHERS)]
    found = np.concatenate([held, left_out])  # the nearest to a training example is itself, the next another
    return found if len(found) >= ENOUGH else 0.5 * found


@dataclass
class MemorisationMonitor:
    """Looks for near copies of training examples at evaluations. Its samples change nothing that is learnt."""

    run: Run
    train: Examples  # in the modality's space
    heldout: Examples
    limit: float
    lows: list[tuple[int, float]]  # step and lower bound of each look, those before a resume too
    clock: Callable[[], float] = time.perf_counter
    cost: float = COST
    spent: float = 0.0
    first: float | None = None  # seconds that the first samples take
    told: bool = False
    begun: float = field(init=False)
    table: Array = field(init=False)
    others: Array = field(init=False)

    def __post_init__(self) -> None:
        timed = self.run.encoder.space.timed
        self.table = vectors(self.train, timed)
        self.others = not_trained_on(self.table, vectors(self.heldout, timed))
        self.begun = self.clock()

    def room(self, seconds: float) -> bool:
        """Whether so many more seconds keep within the share of the time that looking may take."""
        return self.spent + seconds <= self.cost * (self.clock() - self.begun)

    def update(self, learner: Learner) -> dict[str, float]:
        """The share of near copies now, with the lower end of its 95% interval and the number of samples; empty while
        drawing is too slow for the time spent so far, which is said once."""
        if self.first is not None and not self.room(self.first):
            if not self.told:
                events.note(
                    f"step {learner.step}: near copies are looked for less often than at each evaluation: drawing "
                    f"{FIRST} samples takes {self.first:.1f} s, and looking may take {self.cost:.0%} of the time"
                )
            self.told = True
            return {}
        start = self.clock()
        found = self.distances(learner, FIRST, 0)
        self.first = self.clock() - start
        if near_copies(found, self.others).value > 0 and self.room((SAMPLES / FIRST) * self.first):
            found = np.concatenate([found, self.distances(learner, SAMPLES - FIRST, 1)])
        self.spent += self.clock() - start
        share = near_copies(found, self.others)
        self.lows.append((learner.step, share.low or 0.0))
        return {COPIES: share.value, LOW: share.low or 0.0, f"{COPIES}_of": float(share.n)}

    def rewind(self, step: int) -> None:
        """Forget what was seen after `step`."""
        self.lows = [seen for seen in self.lows if seen[0] <= step]

    def distances(self, learner: Learner, n: int, part: int) -> Array:
        """Of n samples to the nearest training example, (n,)."""
        run, seed = self.run, SEED + 2 * learner.step + part
        cond = draw_conditions(run.conditions, n, Rng(seed), "sample/conditions")
        with averaged(learner), adapters_merged(learner.modules) as modules, torch.no_grad():
            x = run.draw(modules, cond, seed, run.family.sampling.settings())
        x = seen(x.float()) if run.encoder.space.timed else x.float()
        return nearest(small(x), self.table)

    def stop_reason(self, learner: Learner) -> str:
        """Why training should end here, or an empty string."""
        lows = [low for _, low in self.lows]
        if learner.step == learner.config.steps or not ends(lows, self.limit):
            return ""
        return (
            f"at least {lows[-1]:.0%} of the samples are near copies of training examples, at two evaluations in "
            f"a row (train.memorisation_limit={self.limit:g})"
        )


def memorisation_monitor(
    run: Run, splits: tuple[Examples, Examples], learner: Learner, rows: Sequence[Mapping[str, float]]
) -> MemorisationMonitor | None:
    """A monitor for a family that makes fields, unless it is turned off or has stopped this run before. `splits` are
    the training and the held-out split in the modality's space, `rows` those of metrics.jsonl."""
    limit = learner.config.memorisation_limit
    if limit == 0 or run.space.kind != "field":
        return None
    if learner.stopped:
        events.note(
            f"training was stopped before: {learner.stopped}. It goes on now, and is not stopped for that again.",
            "stopped_before",
        )
        return None
    return MemorisationMonitor(run, *splits, limit, [(int(row["step"]), row[LOW]) for row in rows if LOW in row])
