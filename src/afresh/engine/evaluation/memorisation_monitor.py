"""Stops training when samples become copies of training examples.

At evaluations, a few samples are drawn with the default settings. A copy is nearer to a training example than 99% of
examples that were not trained on (evaluation/memorisation.py), and than half of what is usual for them: a sample
without fine detail of its own, as of a VAE that has just begun, is nearer by up to the square root of 2 and copies
nothing. The number of near copies among n samples is
binomial: training stops when the lower end of the share's interval exceeds `train.memorisation_limit` at two
evaluations in a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from afresh.core import Examples, events
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data.load import draw_conditions
from afresh.engine.evaluation.distribution import distances
from afresh.engine.evaluation.estimate import Array, Estimate
from afresh.engine.evaluation.image_sets import as_images
from afresh.engine.evaluation.memorisation import near_copies, nearest
from afresh.engine.training.looks import MonitorLook, add_look, looks_in
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.weights import adapters_merged
from afresh.runs.run import Run

FIRST, SAMPLES = 16, 64  # samples drawn first, and in total if one of the first is a near copy
IN_A_ROW = 2  # evaluations that must agree
COST = 0.05  # share of what training takes that the monitor may take
TRAINED = 3  # evaluations of the network that learning an example is worth: one forward, and a backward of two
SIDE = 16  # images are compared as means over cells, at most this many along the longer side
OTHERS = 256  # examples not trained on, at most, whose distances define what is near
ENOUGH = 100  # held-out examples that suffice for it: fewer do not determine the nearest hundredth
HALF = 0.5  # share of the median distance of others, above which a sample is not a copy
SEED = 1_000_211  # of these samples, which differ from those of previews and of metrics
COPIES, LOW, OF = "near_copies", "near_copies_low", "near_copies_of"  # in metrics.jsonl


def should_stop(lows: Sequence[float], limit: float) -> bool:
    """Whether training should stop: the last IN_A_ROW lower bounds of the share of near copies all exceed `limit`. A
    limit of 0 disables it."""
    return limit > 0 and len(lows) >= IN_A_ROW and min(lows[-IN_A_ROW:]) > limit


def cell_means(x: Tensor) -> Array:
    """Fields (N, C, *grid) as vectors (N, D) of means over cells, which are insensitive to noise."""
    grid = x.shape[2:]
    factor = -(-max(grid, default=1) // SIDE)
    if factor > 1:
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(grid)]
        x = pool(x, [min(factor, g) for g in grid], ceil_mode=True, count_include_pad=False)
    return np.asarray(x.flatten(1).cpu().numpy())  # float32 to save memory; distances are computed in float64


def vectors(examples: Examples, timed: bool = False) -> Array:
    """The `cell_means` (N, D) of every example of a field; with `timed`, those of the spectra of waves."""
    parts = (p.float() * examples.scale + examples.shift for p in examples.x.split(1024))
    return np.concatenate([cell_means(as_images(p) if timed else p) for p in parts])


def not_trained_on(train: Array, heldout: Array) -> Array:
    """Distances (M,) of examples to the nearest training example other than themselves.

    The examples are held out; if there are fewer than ENOUGH, training examples are added.
    """
    of_heldout = nearest(heldout[evenly_spaced(len(heldout), OTHERS).numpy()], train)
    if len(of_heldout) >= ENOUGH or len(train) < 2:
        return of_heldout
    of_train = [
        np.partition(distances(train[i : i + 1], train)[0], 1)[1] for i in evenly_spaced(len(train), OTHERS).tolist()
    ]
    return np.concatenate([of_heldout, of_train])  # the nearest to a training example is itself, hence the second


def copies(of_samples: Array, others: Array) -> Estimate:
    """The share of samples that are copies; both are distances to the nearest training example."""
    return near_copies(np.where(of_samples <= HALF * np.median(others), of_samples, np.inf), others)


@dataclass
class MemorisationMonitor:
    """Searches samples for near copies of training examples at evaluations. Does not affect what is learnt."""

    run: Run
    train: Examples  # in the modality's space
    heldout: Examples
    limit: float
    noted: bool = False  # that searches are skipped
    table: Array = field(init=False)
    others: Array = field(init=False)

    def __post_init__(self) -> None:
        timed = self.run.encoder.space.timed
        self.table = vectors(self.train, timed)
        self.others = not_trained_on(self.table, vectors(self.heldout, timed))

    def affordable(self, learner: Learner, samples: int) -> bool:
        """Whether so many more samples stay within COST. What they take is counted in evaluations of the network,
        not in seconds, so that a run that is resumed searches at the same steps."""
        drawn = sum(look.value for look in learner.looks.get(OF, [])) + samples
        each = self.run.family.evaluations.sample(self.run.space, self.run.family.sampling.settings())
        return drawn * each <= COST * TRAINED * learner.config.batch * learner.step

    def update(self, learner: Learner) -> dict[str, float]:
        """The share of near copies, the lower end of its 95% interval, and the number of samples. Empty while drawing
        takes too much of the work so far, which is noted once."""
        if learner.looks.get(OF) and not self.affordable(learner, FIRST):
            if not self.noted:
                events.note(
                    f"step {learner.step}: near copies are not searched for at every evaluation: drawing samples "
                    f"for it may take {COST:.0%} of what training takes"
                )
            self.noted = True
            return {}
        distance = self.distances(learner, FIRST, 0)
        if copies(distance, self.others).value > 0 and self.affordable(learner, SAMPLES):
            distance = np.concatenate([distance, self.distances(learner, SAMPLES - FIRST, 1)])
        share = copies(distance, self.others)
        add_look(learner.looks, LOW, MonitorLook(learner.step, share.low or 0.0))
        add_look(learner.looks, OF, MonitorLook(learner.step, share.n))
        return {COPIES: share.value, LOW: share.low or 0.0, OF: float(share.n)}

    def distances(self, learner: Learner, n: int, part: int) -> Array:
        """Distances (n,) of n samples to the nearest training example."""
        run, seed = self.run, SEED + 2 * learner.step + part
        cond = draw_conditions(run.conditions, n, Rng(seed), "sample/conditions")
        with averaged(learner), adapters_merged(learner.modules) as modules, torch.no_grad():
            x = run.draw(modules, cond, seed, run.family.sampling.settings())
        x = as_images(x.float()) if run.encoder.space.timed else x.float()
        return nearest(cell_means(x), self.table)

    def stop_reason(self, learner: Learner) -> str:
        """Why training should stop here, or an empty string."""
        lows = [look.value for look in learner.looks.get(LOW, [])]
        if learner.step == learner.config.steps or not should_stop(lows, self.limit):
            return ""
        return (
            f"at least {lows[-1]:.0%} of the samples are near copies of training examples, at two evaluations in "
            f"a row (`train.memorisation_limit={self.limit:g}`)"
        )


def memorisation_monitor(
    run: Run, splits: tuple[Examples, Examples], learner: Learner, rows: Sequence[Mapping[str, float]]
) -> MemorisationMonitor | None:
    """A monitor for a family over fields, unless it is disabled, this run was stopped before, or samples follow what
    was before, so that they resemble what followed it. `splits` are the training and the held-out split in the
    modality's space, `rows` those of metrics.jsonl, for a checkpoint of an earlier version."""
    limit = learner.config.memorisation_limit
    if limit == 0 or run.encoder.space.kind != "field" or run.space.kind != "field":
        return None
    if learner.stopped or any(part.persists for part in run.conds.values()):
        return None
    for name in (LOW, OF):
        learner.looks.setdefault(name, looks_in(rows, name, learner.step))
    return MemorisationMonitor(run, *splits, limit)
