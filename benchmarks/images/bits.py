"""Bits a value that a flow needs: of data whose bits are known in closed form, and of CIFAR pictures.

The first are 8x8 grey pictures drawn from one Gaussian with smooth correlations, rounded to bytes; a flow of three
minutes is held against that Gaussian itself. The second takes the model of the benchmark `cifar` (trained here where it
was not) on the pictures that it was watched by. Each picture's noise is one draw, so that a mean has an interval.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afresh.engine.evaluation.estimate import Estimate, mean
from afresh.engine.evaluation.likelihood import bits_per_dim, scored_rows
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.measuring import RunEvidence
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder
from benchmarks.common.ours import train
from benchmarks.common.results import Row, save, with_interval
from benchmarks.images.judges import judge_of
from benchmarks.images.pictures import contender, prepared

SIDE, LEVEL, SPREAD, REACH = 8, 128.0, 30.0, 2.0  # cells a side; mean and deviation in levels; length of correlations
PICTURES, MINUTES, NEAR = 4_000, 3.0, 0.05  # bits a value that the flow may be off by

Array = NDArray[np.float64]


def covariance() -> Array:
    """Of the cells of a picture, (64, 64), in levels squared: a squared exponential of their distance."""
    place = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)
    square = ((place[:, None] - place[None]) ** 2).sum(-1)
    return SPREAD**2 * (np.exp(-square / (2 * REACH**2)) + 0.05 * np.eye(len(place)))


def gaussian_pictures(n: int, seed: int) -> NDArray[np.uint8]:
    """(n, 8, 8, 1) bytes; levels beyond 0 to 255 are four deviations away, and clipped."""
    x = np.random.default_rng(seed).multivariate_normal(np.full(SIDE**2, LEVEL), covariance(), n)
    return x.round().clip(0, 255).astype(np.uint8).reshape(n, SIDE, SIDE, 1)


def exact(x: NDArray[np.uint8]) -> Estimate:
    """Bits a value of bytes (n, ...) under the Gaussian they were drawn from, with the noise of their bins, whose mean
    effect on the square is the trace of the inverse over 12."""
    inverse, dims = np.linalg.inv(covariance()), SIDE**2
    away = x.reshape(len(x), -1).astype(np.float64) - LEVEL
    square = np.einsum("ni,ij,nj->n", away, inverse, away) + np.trace(inverse) / 12
    nats = 0.5 * (square + np.linalg.slogdet(covariance())[1] + dims * math.log(2 * math.pi))
    return mean(nats / dims / math.log(2))


def trained(folder: Path, threads: int) -> Run:
    """A flow on the Gaussian pictures."""
    for seed, (name, n) in enumerate((("train", PICTURES), ("held", PICTURES // 10))):
        np.savez(folder / f"{name}.npz", x=gaussian_pictures(n, seed))
    command = [str(folder / "train.npz"), "--modality", "image", "--family", "flow"]
    command += ["--validation", str(folder / "held.npz"), "--minutes", f"{MINUTES:g}"]
    train(folder / "run", command, threads)
    return Run.open(folder / "run")


def of(run: Run) -> tuple[Estimate, float, RunEvidence, float]:
    """Bits a value by the run, by an independent Gaussian of every value, the evidence, seconds a picture."""
    evidence, begun = RunEvidence(run, run_data(run)), time.perf_counter()
    (score,) = bits_per_dim(evidence)
    assert score.control is not None
    each = (time.perf_counter() - begun) / score.n
    return Estimate(score.value, score.low, score.high, score.n), score.control, evidence, each


def main() -> None:
    threads = len(os.sched_getaffinity(0))
    own, control, evidence, each = of(trained(work_folder("bits"), threads))
    held = evidence.heldout.x[scored_rows(evidence.heldout)].numpy()
    known = exact(held)
    off = own.value - known.value
    rows = [
        Row(
            "bits a value, Gaussian data",
            f"a flow of {MINUTES:g} min on {PICTURES:,} pictures; {each:.2f} s a picture to tell",
            with_interval(own),
            f"{known.value:.3f} (exact, the same pictures); {control:.3f} (independent Gaussians)",
            own.value / known.value,
            f"within {NEAR:g} bits",
            abs(off) <= NEAR,
            str(own.n),
        )
    ]
    task = prepared("cifar", None, 0)
    contender(task, "flow", judge_of(task.loaded, task.set.samples))
    own, control, _, each = of(Run.open(task.folder / "flow" / "run"))
    rows.append(
        Row(
            "bits a value, CIFAR",
            f"the flow of {task.minutes:g} min on {len(task.loaded.train):,} pictures; {each:.2f} s a picture to tell",
            with_interval(own),
            f"{control:.3f} (independent Gaussians); 8 (bytes by themselves)",
            own.value / control,
            "below independent Gaussians",
            own.value < control,
            str(own.n),
        )
    )
    for row in rows:
        print(row, flush=True)
    save("bits", rows)


BENCHMARKS = (Benchmark("bits", ("cifar10_small",), 40, main),)
