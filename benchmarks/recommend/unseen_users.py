"""Whether users who were never seen get recommendations as good as those who were: `python -m benchmarks unseen_users`.

Beauty from AFRESH_DATA is divided into two halves of its users, and a run is trained on each half without the last
event of each user. Both runs then predict the last event of every user from the history before. So each user is seen by
one run and unseen by the other, and the difference is a paired one. The whole catalogue is ranked, ties count against
us, items of the history are left out.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from afresh.domains.interactions.ranking import Items
from afresh.domains.interactions.recommend import Recommender
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save
from benchmarks.recommend.recommendations import K, Ours, ranking, trained
from benchmarks.recommend.sets import Asked, Task, leave_one_out, s3rec

MINUTES = 2.0  # of one processor, for each run
RESAMPLES = 2_000


def half_of(task: Task, users: Items) -> Task:
    """The task with the histories of some users only, and the questions of all."""
    asked = task.test
    return replace(task, test=Asked([asked.histories[u] for u in users], None, [], np.empty(0, np.int64), users))


def gains(task: Task, users: Items, seed: int) -> Items:
    """NDCG@10 of each question by a run that has seen these users."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = trained(half_of(task, users), folder, MINUTES, seed, "last")
        ranks = ranking(task, Ours(Recommender(run), task.items, alone=False)).ranks
    return np.where(ranks <= K, 1 / np.log2(1.0 + ranks), 0.0)


def main() -> None:
    task = leave_one_out("Beauty", s3rec("Beauty"))
    order = np.random.default_rng(0).permutation(len(task.test.histories))
    halves = np.array_split(order, 2)
    in_first = np.isin(task.test.users, halves[0])
    first, second = (gains(task, np.sort(half), seed) for seed, half in enumerate(halves))
    seen, unseen = np.where(in_first, first, second), np.where(in_first, second, first)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(seen), size=len(seen)) for _ in range(RESAMPLES)]
    low, high = np.quantile([unseen[d].mean() / seen[d].mean() for d in drawn], (0.025, 0.975))
    ratio = float(unseen.mean() / seen.mean())
    n = f"{len(seen):,} users, each seen by one of two runs; {MINUTES:g} minutes of a processor each"
    ours = f"{unseen.mean():.4f} (ratio 95% {low:.3f} to {high:.3f})"
    row = Row(
        "recommendations, unseen users",
        "NDCG@10 on Beauty",
        ours,
        f"{seen.mean():.4f} (seen)",
        ratio,
        "at least 0.95",
        ratio >= 0.95,
        n,
    )
    print(row, file=sys.stderr)
    save("unseen_users", [row])


BENCHMARKS = (Benchmark("unseen_users", ("interactions_s3rec",), 6, main),)
