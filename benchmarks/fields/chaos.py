"""Rollouts of the Kuramoto-Sivashinsky equation in APEBench's setting: how long and how honestly they follow the truth.

50 trajectories of 50 steps to learn from, 30 of 200 to be judged by, 160 points. Contenders are trained for the same
minutes, each on one core with one thread, and roll out from the first state of each test trajectory: `ensemble`, `flow`
and `refiner` by the planner's own choices; `regression`, which is the network of the ensemble's mean; `unet`, a
regression by a U-Net of a similar size; `fno`, that of neuraloperator. Their seconds pay for everything, a peer's for
training alone. The linear model has no minutes. Members of the ensemble keep their noise for as many steps as is best
on trajectories that are neither learnt nor judged by; the flow and the refiner draw new noise at each step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Cond
from afresh.domains.field.calibration import coverage, ranks, spread_and_error, spread_skill
from afresh.domains.field.linear_model import fit_linear_model
from afresh.domains.field.linear_model import roll_out as roll_out_linearly
from afresh.domains.field.rollout import KEPT, field_encoder, futures
from afresh.domains.field.scores import absolute_error, correlation, correlation_times, crps
from afresh.domains.field.spectra import mean_spectrum, spectrum_errors
from afresh.domains.field.systems import SYSTEMS
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save
from benchmarks.fields.peers.fno import Ask

SYSTEM = SYSTEMS["kuramoto-sivashinsky"]
LEARNT, TESTED, STEPS, MEMBERS, MINUTES = 50, 30, 200, 16, 20.0
OURS = {
    "ensemble": ("--family", "ensemble"),
    "flow": ("--family", "flow"),
    "refiner": ("--family", "refiner"),
    "regression": ("--family", "ensemble", "--set", "family.members=1"),
    "unet": (
        *("--family", "ensemble", "--set", "family.members=1", "--set", "family.net=unet"),
        *("--set", "family.widths=[32,64]", "--set", "family.blocks=2", "--set", "family.attention=false"),
    ),
}
CONTENDERS = ("ensemble", "fno", "unet", "flow", "refiner", "regression")
MODES, WIDTH = 64, 48  # of the FNO, of 0.33M parameters: the only setting that was tried
FLOW_STEPS = 5  # of the solver in each step of a flow's rollout
COMPARED = {"ensemble", "fno", "unet", "regression"}  # without which there are no results
CHOOSING = 10  # other trajectories, by which it is chosen for how many steps members keep their noise
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Of one contender: the time for which the correlation with the truth is above .8 (of the mean of members, and of a
    member), the error of the logarithm of the energy at middle and high wavenumbers, and by lead the spread-skill
    ratio, the coverage of 90% intervals, the CRPS and the absolute error of the first member."""

    followed: float
    alone: float
    middle: float
    high: float
    ratio: list[float]
    held: list[float]
    crps: list[float]
    error: list[float]


def test_states() -> Array:
    return SYSTEM.states(0, TESTED, STEPS, first=LEARNT).astype(np.float64)


def train(name: str, root: Path, minutes: float, core: int) -> None:
    """Trains a contender once for so many minutes."""
    folder = root / f"{name}-{minutes:g}"
    if name == "fno":
        if not (folder / "answer.json").exists():
            data, starts, seconds = str(root / "pairs.npz"), str(root / "starts.npy"), 60 * minutes
            ask = Ask(data, starts, STEPS, seconds, 1, modes=[MODES], width=WIDTH)
            processes.ask("benchmarks.fields.peers.fno", ask, folder, core=core)
    elif not (folder / "report.json").exists():
        command = ["afresh", "train", str(root / "data"), "--minutes", f"{minutes:g}", "--out", str(folder), "--force"]
        processes.run([*command, "--no-measure", *OURS[name]], root / f"{name}.log", core=core)


def rolled(name: str, root: Path, minutes: float, states: Array) -> Array:
    """Members (M, N, T, C, X) of a contender that is trained."""
    folder = root / f"{name}-{minutes:g}"
    if name == "fno":
        return np.load(folder / "states.npy")[None].astype(np.float64)
    members = 1 if name in ("regression", "unet") else MEMBERS
    run, settings = Run.open(folder), {"steps": FLOW_STEPS} if name == "flow" else {}
    keep = steps_of_noise(run) if name == "ensemble" else 1
    print(name, f"noise is kept for {keep} steps", flush=True)
    return roll_out(run, states, STEPS, members, keep, settings)


def steps_of_noise(run: Run) -> int:
    """With which 90% intervals hold most nearly 90% of trajectories that are neither learnt nor judged by."""
    states = SYSTEM.states(0, CHOOSING, STEPS // 2, first=LEARNT + TESTED).astype(np.float64)

    def held(keep: int) -> float:
        members = roll_out(run, states, STEPS // 2, MEMBERS, keep, {})
        return float(np.mean([e.value for e in coverage(ranks(members, states[:, 1:]), 0.9)]))

    return min(KEPT, key=lambda keep: abs(held(keep) - 0.9))


def roll_out(run: Run, states: Array, steps: int, members: int, keep: int, settings: Mapping[str, Any]) -> Array:
    """Members (M, N, T, C, X) that begin with the first states of trajectories, in physical units."""
    encoder, cond = field_encoder(run), begin(run, states)
    drawn = [encoder.physical(x) for x in futures(run, encoder, cond, steps, 0, keep, settings, members)]
    out = np.stack(drawn, 1).reshape(cond.size, members, steps, *encoder.space.shape)
    return out.swapaxes(0, 1).astype(np.float64)


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

    errors = spectrum_errors(mean_spectrum(ensemble, ring, spacing), mean_spectrum(truth, ring, spacing))
    spread = [e.value for e in spread_skill(spread_and_error(ensemble, truth))] if several else []
    held = [e.value for e in coverage(ranks(ensemble, truth), 0.9)] if several else []
    score = crps(ensemble, truth) if several else absolute_error(ensemble[0], truth)
    return Found(
        follows(ensemble.mean(0)),
        follows(ensemble[0]),
        errors["middle"].error.value,
        errors["high"].error.value,
        spread,
        held,
        score.mean((0, 2)).tolist(),
        absolute_error(ensemble[0], truth).mean((0, 2)).tolist(),
    )


def main(*given: str) -> None:
    parser = parser_of("field_chaos", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--cores", type=int, default=2, help="contenders that are trained side by side")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="contenders")
    asked = parser.parse_args(given)
    root = work_folder("chaos")
    learnt = SYSTEM.states(0, LEARNT, LEARNT)
    states = test_states()
    if not (root / "data").exists():
        (root / "data").mkdir()
        x, t = SYSTEM.grid().spacing * np.arange(SYSTEM.points), SYSTEM.step * np.arange(LEARNT + 1)
        np.savez(root / "data" / "states.npz", u=learnt[:, :, 0], t=t, x=x)
    pairs = [learnt[:, part].reshape(-1, *learnt.shape[2:]) for part in (slice(-1), slice(1, None))]
    np.savez(root / "pairs.npz", x=pairs[0], y=pairs[1])
    np.save(root / "starts.npy", states[:, 0].astype(np.float32))
    with ThreadPoolExecutor(asked.cores) as pool:
        for first in range(0, len(asked.only), asked.cores):
            together = asked.only[first : first + asked.cores]
            jobs = [pool.submit(train, name, root, asked.minutes, core) for core, name in enumerate(together)]
            for job in jobs:
                job.result()
    torch.set_num_threads(1)
    truth, found = states[:, 1:], dict[str, Found]()
    linear = roll_out_linearly(fit_linear_model(learnt.astype(np.float64), SYSTEM.periodic), states[:, 0], STEPS)
    found["linear"] = judged(linear[None], truth)
    for name in asked.only:
        found[name] = judged(rolled(name, root, asked.minutes, states), truth)
        print(name, json.dumps({k: v for k, v in vars(found[name]).items() if isinstance(v, float)}), flush=True)
    (root / f"found-{asked.minutes:g}.json").write_text(json.dumps({k: vars(v) for k, v in found.items()}, indent=1))
    if set(asked.only) >= COMPARED:
        save("field_chaos", rows(found, asked.minutes))


def until(values: list[float], time: float) -> list[float]:
    """Those of the leads up to a time, the first at least."""
    return values[: max(1, int(time / SYSTEM.step))]


def range_of(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def rows(found: dict[str, Found], minutes: float) -> list[Row]:
    n = f"{TESTED} trajectories, one training each of {minutes:g} minutes of one core"
    ours, rivals = found["ensemble"], [found["fno"], found["unet"]]
    longer = ours.followed / max(f.followed for f in rivals)
    rough = min(f.high for f in rivals)
    ratio, held = until(ours.ratio, ours.followed), until(ours.held, ours.followed)
    theirs = np.mean(until(found["regression"].error, ours.followed))
    share = float(np.mean(until(ours.crps, ours.followed)) / theirs)

    def others(part: str) -> str:
        return "; ".join(f"{name} {getattr(f, part):.2f}" for name, f in found.items() if name != "ensemble")

    def by_chance(part: str) -> str:
        """The same of the other contenders that draw several members."""
        others = {name: getattr(found[name], part) for name in ("flow", "refiner") if name in found}
        return "; ".join(f"{name} {range_of(until(values, ours.followed))}" for name, values in others.items())

    def row(what: str, value: str, theirs: str, ratio: float | None, goal: str, reached: bool) -> Row:
        return Row("Kuramoto-Sivashinsky", what, value, theirs, ratio, goal, reached, n)

    return [
        row(
            "time of correlation above .8",
            f"{ours.followed:.1f}",
            others("followed"),
            longer,
            "≥ 1.25 x fno and unet",
            longer >= 1.25,
        ),
        row(
            "error of the log spectrum, high third",
            f"{ours.high:.2f}",
            others("high"),
            ours.high / rough if rough else None,
            "≤ 0.5 x fno and unet",
            ours.high <= 0.5 * rough,
        ),
        row("error of the log spectrum, middle third", f"{ours.middle:.2f}", others("middle"), None, "stated", True),
        row(
            "spread-skill ratio up to that time",
            range_of(ratio),
            by_chance("ratio"),
            None,
            "0.9 to 1.1",
            min(ratio) >= 0.9 and max(ratio) <= 1.1,
        ),
        row(
            "coverage of 90% intervals up to that time",
            range_of(held),
            by_chance("held"),
            None,
            "0.88 to 0.92",
            all(0.88 <= h <= 0.92 for h in held),
        ),
        row("CRPS beside the regression's absolute error", f"{share:.2f}", "1", share, "≤ 0.8", share <= 0.8),
    ]


BENCHMARKS = (Benchmark("field_chaos", (), 70, main),)
