"""States of the Kuramoto-Sivashinsky equation from few noisy observations: the posterior of a flow beside others.

A flow learns states without time, and draws each unseen state given a tenth of its points, or given means of blocks,
both with noise. Beside it: optimal interpolation with the mean and the covariance of the training states (the exact
posterior if states were Gaussian), linear interpolation, and the same flow guided by the gradient of an energy. One
core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Cond, Edit
from afresh.domains.field.assimilation import draw_posterior
from afresh.domains.field.calibration import coverage, ranks, spread_and_error
from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.observations import Observed
from afresh.domains.field.scores import absolute_error, crps
from afresh.domains.field.systems import SYSTEMS
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save

SYSTEM = SYSTEMS["kuramoto-sivashinsky"]
TRAJECTORIES, STEPS, MINUTES = 200, 24, 4.0
TESTED, FIRST, MEMBERS, PRODUCTS = 10, 1000, 16, 8
NOISE, SHARE, BLOCK = 0.1, 0.1, 8
ENERGY, OPTIMAL, LINEAR, OURS = "energy guidance", "optimal interpolation", "linear interpolation", "flow"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """The root mean square of the error of the mean, the CRPS, the spread-skill ratio, the coverage of 50% and 90%
    intervals, and the reduced chi-square of the residuals; NaN where there is no spread."""

    error: float
    crps: float
    ratio: float = math.nan
    held50: float = math.nan
    held90: float = math.nan
    chi_square: float = math.nan


def trained(root: Path, minutes: float) -> Run:
    data, run = root / "data", root / f"flow-{minutes:g}"
    if not (data / "states.npz").exists():
        words = ["--set", f"trajectories={TRAJECTORIES}", "--set", f"steps={STEPS}"]
        processes.run(["afresh", "demo", SYSTEM.name, "--out", str(data), *words], root / "data.log")
    if not (run / "report.json").exists():
        words = ["--family", "flow", "--data", "history=0", "--minutes", f"{minutes:g}", "--no-measure", "--force"]
        processes.run(["afresh", "train", str(data), "--out", str(run), *words], root / "flow.log")
    return Run.open(run)


def observations(encoder: FieldEncoder, truth: Array, problem: str) -> list[Observed]:
    """Of each true state (N, 1, points): a tenth of its points, at random, or the means of blocks."""
    generator, out = np.random.default_rng(0), []
    for state in truth:
        values = state.copy() if problem == "points" else state.reshape(1, -1, BLOCK).mean(-1)
        values += NOISE * generator.normal(size=values.shape)
        if problem == "points":
            seen = generator.choice(values.size, round(SHARE * values.size), replace=False)
            values[0, np.setdiff1d(np.arange(values.size), seen)] = np.nan
        out.append(Observed(encoder, values, (state.size // values.size,), (NOISE,)))
    return out


def optimal(observed: Observed, learnt: Array) -> Array:
    """Members (M, 1, points) of the Gaussian posterior under the moments of the training states (N, points)."""
    mean, covariance = learnt.mean(0), np.cov(learnt.T)
    matrix = observed.of(np.eye(len(mean))[:, None]).T
    gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + NOISE**2 * np.eye(len(matrix)))
    centre = mean + gain @ (observed.values[observed.known] - matrix @ mean)
    values, vectors = np.linalg.eigh(covariance - gain @ matrix @ covariance)
    draws = np.random.default_rng(1).normal(size=(MEMBERS, len(mean))) * np.sqrt(np.maximum(values, 0))
    return (centre + draws @ vectors.T)[:, None]


def linear(observed: Observed) -> Array:
    """(1, 1, points): between the observations and around the ring, from the middles of blocks."""
    factor, values = observed.factors[0], observed.values[0]
    at, points = np.flatnonzero(np.isfinite(values)), values.size * factor
    between = np.interp(np.arange(points), factor * at + (factor - 1) / 2, values[at], period=points)
    return between[None, None]


def guided(run: Run, observed: Observed, seed: int) -> Tensor:
    """Members by the gradient of the energy of the same observations."""
    task, edit = observed.task(PRODUCTS), run.family.edit
    assert edit is not None

    def energy(x: Tensor) -> Tensor:
        return ((task.operator(x) - task.values) / task.std).square().sum(1) / 2

    def sample(modules: Any, config: Any, space: Any, cond: Cond, rng: Any, index: Tensor, settings: Any) -> Tensor:
        return edit(modules, config, space, Edit(energy=energy), cond, rng, index, settings)

    cond = Cond.unconditional(run.conds, MEMBERS)
    return run.draw(run.modules, cond, seed, run.settings({"solver": "sde"}), sampler=sample)


def judged(members: Array, truth: Array, seen: list[Observed]) -> Found:
    """Of members (M, N, 1, points) and the truth (N, 1, points)."""
    ensemble, true = members[:, :, None], truth[:, None]
    error = math.sqrt(np.square(ensemble.mean(0) - true).mean())
    if len(members) == 1:
        return Found(error, float(absolute_error(ensemble[0], true).mean()))
    spread, places = spread_and_error(ensemble, true), ranks(ensemble, true)
    return Found(
        error,
        float(crps(ensemble, true).mean()),
        math.sqrt(spread.variance.mean() / spread.error.mean()),
        coverage(places, 0.5)[0].value,
        coverage(places, 0.9)[0].value,
        float(np.mean([observed.chi_square(members[:, i]) for i, observed in enumerate(seen)])),
    )


def solved(run: Run, encoder: FieldEncoder, truth: Array, learnt: Array, problem: str) -> dict[str, Found]:
    seen = observations(encoder, truth, problem)
    alone = Cond.unconditional(run.conds, 1)

    def flow(observed: Observed, seed: int) -> Array:
        return encoder.physical(draw_posterior(run, observed.task(PRODUCTS), alone, MEMBERS, seed)).astype(np.float64)

    solvers: dict[str, Callable[[Observed, int], Array]] = {
        LINEAR: lambda observed, seed: linear(observed),
        OPTIMAL: lambda observed, seed: optimal(observed, learnt),
        ENERGY: lambda observed, seed: encoder.physical(guided(run, observed, seed)).astype(np.float64),
        OURS: flow,
    }
    found = {}
    for name, solve in solvers.items():
        members = np.stack([solve(observed, i) for i, observed in enumerate(seen)], 1)
        found[name] = judged(members, truth, seen)
        print(problem, name, {k: round(v, 3) for k, v in vars(found[name]).items()}, flush=True)
    return found


def main(*given: str) -> None:
    parser = parser_of("field_inverse", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training")
    asked = parser.parse_args(given)
    torch.set_num_threads(1)
    root = work_folder("inverse")
    run = trained(root, asked.minutes)
    encoder = run.encoder
    assert isinstance(encoder, FieldEncoder)
    learnt = np.load(root / "data" / "states.npz")["velocity"].reshape(-1, SYSTEM.points).astype(np.float64)
    truth = SYSTEM.states(0, TESTED, 1, first=FIRST)[:, 0].astype(np.float64)
    found = {problem: solved(run, encoder, truth, learnt, problem) for problem in ("points", "blocks")}
    if asked.minutes == MINUTES:
        save("field_inverse", [row for problem, by_name in found.items() for row in rows(problem, by_name)])


def rows(problem: str, found: dict[str, Found]) -> list[Row]:
    about = {
        "points": f"Kuramoto-Sivashinsky, {SHARE:.0%} of the points observed with noise {NOISE:g}",
        "blocks": f"Kuramoto-Sivashinsky, means of {BLOCK} points observed with noise {NOISE:g}",
    }[problem]
    n = f"{TESTED} states, {MEMBERS} members, one training of {MINUTES:g} minutes of one core"
    ours, best = found[OURS], found[OPTIMAL]

    def row(what: str, of: Callable[[Found], float], goal: str, reached: bool, ratio: bool = False) -> Row:
        others = "; ".join(f"{name} {of(f):.2f}" for name, f in found.items() if name != OURS and math.isfinite(of(f)))
        return Row(about, what, f"{of(ours):.2f}", others, of(ours) / of(best) if ratio else None, goal, reached, n)

    return [
        row("error of the mean", lambda f: f.error, "≤ 1 x", ours.error <= best.error, True),
        row("CRPS", lambda f: f.crps, "≤ 0.9 x", ours.crps <= 0.9 * best.crps, True),
        row("spread-skill ratio", lambda f: f.ratio, "0.9 to 1.1", 0.9 <= ours.ratio <= 1.1),
        row("coverage of 50% intervals", lambda f: f.held50, "0.45 to 0.55", 0.45 <= ours.held50 <= 0.55),
        row("coverage of 90% intervals", lambda f: f.held90, "0.88 to 0.92", 0.88 <= ours.held90 <= 0.92),
        row(
            "reduced chi-square of the residuals", lambda f: f.chi_square, "0.8 to 1.25", 0.8 <= ours.chi_square <= 1.25
        ),
    ]


BENCHMARKS = (Benchmark("field_inverse", (), 8, main),)
