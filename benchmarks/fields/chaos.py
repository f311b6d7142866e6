"""Rollouts of the Kuramoto-Sivashinsky equation in APEBench's setting: how long and how honestly they follow the truth.

50 trajectories of 50 steps to learn from, 30 of 200 to be judged by, 160 points. An ensemble, the regression of the
same network, and a flow are trained for the same minutes, each with both cores to itself, and roll out from the first
state of each test trajectory. The linear model has no minutes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Cond
from afresh.domains.field.calibration import coverage, ranks, spread_and_error, spread_skill
from afresh.domains.field.linear_model import fit_linear_model
from afresh.domains.field.linear_model import roll_out as roll_out_linearly
from afresh.domains.field.rollout import field_encoder, roll_out
from afresh.domains.field.scores import absolute_error, correlation, correlation_times, crps
from afresh.domains.field.spectra import mean_spectrum, spectrum_errors
from afresh.domains.field.systems import SYSTEMS
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save

SYSTEM = SYSTEMS["kuramoto-sivashinsky"]
LEARNT, TESTED, STEPS, MEMBERS, MINUTES = 50, 30, 200, 16, 20.0
CONTENDERS = {
    "ensemble": ("--family", "ensemble"),
    "regression": ("--family", "ensemble", "--set", "family.members=1"),
    "flow": ("--family", "flow"),
}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Of one contender: the time for which the correlation with the truth is above .8 (of the mean of members, and of a
    member), the error of the logarithm of the energy at high wavenumbers, and by lead the spread-skill ratio, the
    coverage of 90% intervals, the CRPS and the absolute error of the first member."""

    followed: float
    alone: float
    high: float
    ratio: list[float]
    held: list[float]
    crps: list[float]
    error: list[float]


def test_states() -> Array:
    return SYSTEM.states(0, TESTED, STEPS, first=LEARNT).astype(np.float64)


def trained(name: str, words: tuple[str, ...], root: Path, minutes: float) -> Run:
    run = root / f"{name}-{minutes:g}"
    if not (run / "report.json").exists():
        command = ["afresh", "train", str(root / "data"), "--minutes", f"{minutes:g}", "--out", str(run), "--force"]
        processes.run([*command, "--no-measure", *words], root / f"{name}.log")
    return Run.open(run)


def begin(run: Run, states: Array) -> Cond:
    """The conditions of the first states of trajectories."""
    encoder = field_encoder(run)
    return Cond.cat([encoder.conditions(first[None].astype(np.float32), {}, {}) for first in states[:, 0]])


def judged(ensemble: Array, truth: Array) -> Found:
    """Of members (M, N, T, C, X) and the truth (N, T, C, X)."""
    step, ring, spacing = SYSTEM.step, SYSTEM.periodic, (SYSTEM.grid().spacing,)
    several = len(ensemble) > 1

    def follows(prediction: Array) -> float:
        return float(correlation_times(correlation(prediction, truth), step).times.mean())

    high = spectrum_errors(mean_spectrum(ensemble, ring, spacing), mean_spectrum(truth, ring, spacing))["high"]
    spread = [e.value for e in spread_skill(spread_and_error(ensemble, truth))] if several else []
    held = [e.value for e in coverage(ranks(ensemble, truth), 0.9)] if several else []
    score = crps(ensemble, truth) if several else absolute_error(ensemble[0], truth)
    return Found(
        follows(ensemble.mean(0)),
        follows(ensemble[0]),
        high.error.value,
        spread,
        held,
        score.mean((0, 2)).tolist(),
        absolute_error(ensemble[0], truth).mean((0, 2)).tolist(),
    )


def main(*given: str) -> None:
    parser = parser_of("field_chaos", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="contenders")
    asked = parser.parse_args(given)
    root = work_folder("chaos")
    learnt = SYSTEM.states(0, LEARNT, LEARNT)
    if not (root / "data").exists():
        (root / "data").mkdir()
        x, t = SYSTEM.grid().spacing * np.arange(SYSTEM.points), SYSTEM.step * np.arange(LEARNT + 1)
        np.savez(root / "data" / "states.npz", u=learnt[:, :, 0], t=t, x=x)
    states = test_states()
    truth, found = states[:, 1:], dict[str, Found]()
    linear = roll_out_linearly(fit_linear_model(learnt.astype(np.float64), SYSTEM.periodic), states[:, 0], STEPS)
    found["linear"] = judged(linear[None], truth)
    for name in asked.only:
        run = trained(name, CONTENDERS[name], root, asked.minutes)
        members = 1 if name == "regression" else MEMBERS
        torch.set_num_threads(2)
        found[name] = judged(roll_out(run, begin(run, states), STEPS, members, 0).astype(np.float64), truth)
        print(name, json.dumps({k: v for k, v in vars(found[name]).items() if isinstance(v, float)}), flush=True)
    if asked.minutes == MINUTES and set(asked.only) == set(CONTENDERS):
        save("field_chaos", rows(found))


def at(values: list[float], time: float) -> str:
    """The least and the greatest value up to a time."""
    until = values[: max(1, int(time / SYSTEM.step))]
    return f"{min(until):.2f} to {max(until):.2f}"


def rows(found: dict[str, Found]) -> list[Row]:
    n = f"{TESTED} trajectories, one training each of {MINUTES:g} minutes of two cores"
    ours, plain = found["ensemble"], found["regression"]
    longer = ours.followed / plain.followed
    calibrated = ours.ratio[: max(1, int(ours.followed / SYSTEM.step))]
    share = float(np.mean(ours.crps[: len(calibrated)]) / np.mean(plain.error[: len(calibrated)]))
    others = "; ".join(f"{name} {f.followed:.1f}" for name, f in found.items() if name != "ensemble")
    spectra = "; ".join(f"{name} {f.high:.2f}" for name, f in found.items() if name != "ensemble")

    def row(what: str, value: str, theirs: str, ratio: float | None, goal: str, reached: bool) -> Row:
        return Row("Kuramoto-Sivashinsky", what, value, theirs, ratio, goal, reached, n)

    return [
        row("time of correlation above .8", f"{ours.followed:.1f}", others, longer, "≥ 1.25 x", longer >= 1.25),
        row(
            "error of the log spectrum, high third",
            f"{ours.high:.2f}",
            spectra,
            ours.high / plain.high,
            "≤ 0.5 x",
            ours.high <= 0.5 * plain.high,
        ),
        row(
            "spread-skill ratio up to that time",
            at(ours.ratio, ours.followed),
            "",
            None,
            "0.9 to 1.1",
            min(calibrated) >= 0.9 and max(calibrated) <= 1.1,
        ),
        row(
            "coverage of 90% intervals up to that time",
            at(ours.held, ours.followed),
            "",
            None,
            "0.88 to 0.92",
            all(0.88 <= h <= 0.92 for h in ours.held[: len(calibrated)]),
        ),
        row("CRPS beside the regression's absolute error", f"{share:.2f}", "1", share, "≤ 0.8", share <= 0.8),
    ]


BENCHMARKS = (Benchmark("field_chaos", (), 70, main),)
