"""Does the GAN collapse? Five seeds on 300, 2,000 and 12,000 pictures of fashion, conditional, four minutes each.

A collapse is a seed whose recall is below half the median seed's. The judge and what stands beside are those of the
benchmark `fashion`; a model of fewer pictures is held against all of the held-out ones.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from benchmarks.judge_pictures import judge_of, work_folder
from benchmarks.picture_sets import SETS
from benchmarks.pictures import Made, Task, contender
from benchmarks.table import Row, save

SIZES, SEEDS, MINUTES = (300, 2000, 12_000), range(5), 4.0


def row(size: int, made: list[Made]) -> Row:
    """The seeds' recalls, coverages and KIDs beside each other."""
    recall, coverage, kid = ([m.marks[k].value for m in made] for k in ("recall", "coverage", "kid"))
    middle = float(np.median(recall))
    shown = "; ".join(
        f"{name} {min(v):.3g} to {max(v):.3g}"
        for name, v in (("recall", recall), ("coverage", coverage), ("KID x1000", kid))
    )
    first = made[0].marks
    floors = f"floor: recall {first['recall'].floor:.3g}, coverage {first['coverage'].floor:.3g}"
    what = f"{size:,} pictures, {MINUTES:g} min, {len(made)} seeds, lowest to highest"
    goal = "lowest recall at least half the median"
    reached = middle > 0 and min(recall) >= middle / 2
    return Row(
        "fashion, gan by seed", what, shown, floors, min(recall) / max(middle, 1e-9), goal, reached, str(len(made))
    )


def main() -> None:
    fashion = SETS["fashion"]
    whole = fashion.loaded()
    judge = judge_of(whole, fashion.samples)
    threads = len(os.sched_getaffinity(0))
    order = np.random.default_rng(0).permutation(len(whole.train))
    rows = []
    for size in SIZES:
        part = replace(whole, train=whole.train.rows(order[:size]))
        made = []
        for seed in SEEDS:
            folder = work_folder("gan_seeds") / f"{size}-seed{seed}"
            made.append(contender(Task(fashion, part, MINUTES, seed, threads, folder), "gan", judge))
        rows.append(row(size, made))
        print(rows[-1], flush=True)
    save("gan_seeds", rows)


if __name__ == "__main__":
    main()
