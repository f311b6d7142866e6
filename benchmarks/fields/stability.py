"""Rollouts of 1,000 steps of a Kolmogorov flow and of the Gray-Scott model, 64x64: whether they stay stable, whether
their statistics are those of the truth, and what a step costs beside the solver's.

40 trajectories to learn from, with a little noise on the states before, 20 others to be judged by. A rollout is stable
if all its values are finite and within what was seen in training (`afresh.domains.field.range_seen`). Its statistics
(the mean square and the mean of each channel over the last half) are compared with those of trajectories of the solver
of the same length.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.domains.field.range_seen import left_what_was_seen
from afresh.domains.field.references import persistence
from afresh.domains.field.rollout import field_encoder, futures
from afresh.domains.field.scores import vrmse
from afresh.domains.field.spectra import mean_spectrum, spectrum_errors
from afresh.domains.field.systems import SYSTEMS, System
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save
from benchmarks.fields.kolmogorov_flow import KOLMOGOROV_FLOW

SYSTEM_OF = {"kolmogorov-flow": KOLMOGOROV_FLOW, "gray-scott": SYSTEMS["gray-scott"]}
LEARNT, STATES, TESTED, STEPS, MINUTES = 40, 60, 20, 1000, 5.0
EARLY = slice(12, 30)  # steps 13 to 30, as in the Well
NOISE = 0.02  # on the states before, in training
EVERY = 10  # of the states of the last half, of which statistics are taken
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """Of a system: the share of stable rollouts and the first departure, VRMSE over early steps of the rollouts and of
    the first state, how many of the statistics lie within the truth's own range, the error of the spectrum with that of
    other true trajectories, and seconds of a member-step and of the solver's."""

    stable: float
    departure: str
    error: float
    persistence: float
    within: str
    spectrum: float
    floor: float
    step: float
    solver: float


def trained(system: System, root: Path, minutes: float) -> Run:
    run = root / f"{system.name}-{minutes:g}"
    if not (run / "report.json").exists():
        data = root / system.name
        states = system.states(0, LEARNT, STATES)
        grid = system.grid()
        places: dict[str, Any] = {axis: grid.spacing * np.arange(system.points) for axis in ("y", "x")}
        channels: dict[str, Any] = {name: states[:, :, i] for i, name in enumerate(system.channels)}
        data.mkdir(exist_ok=True)
        np.savez(data / "states.npz", **channels, t=system.step * np.arange(STATES + 1), **places)
        command = ["afresh", "train", str(data), "--minutes", f"{minutes:g}", "--out", str(run), "--force"]
        words = ["--no-measure", "--data", "periodic=yes", "--data", f"noise={NOISE}", "--set", "train.threads=1"]
        processes.run([*command, *words], root / f"{system.name}.log")
    return Run.open(run)


def rolled(system: System, run: Run, start: Array) -> tuple[Array, str]:
    """One future (T, C, *space) of a state, up to STEPS states, and why it ended before: where it leaves what was seen
    in training."""
    encoder, states = field_encoder(run), []
    seen = encoder.seen_range
    begin = encoder.conditions(start[None].astype(np.float32), {}, {})
    for k, x in enumerate(futures(run, encoder, begin, STEPS, 0)):
        states.append(encoder.physical(x)[0].astype(np.float64))
        found = left_what_was_seen(states[-1][None], seen, channels=encoder.channels)
        if found is not None:
            return np.stack(states), f"state {k + 1}: {found.reason}"
    return np.stack(states), ""


def judged(system: System, run: Run) -> Found:
    truth = system.states(0, TESTED, STEPS, first=LEARNT).astype(np.float64)
    started = time.process_time()
    futures_of = [rolled(system, run, first) for first in truth[:, 0]]
    step = (time.process_time() - started) / sum(len(states) for states, _ in futures_of)
    started = time.process_time()
    system.rollout(truth[:1, 0], 50)
    solver = (time.process_time() - started) / 50
    left = [f"start {i}, {why}" for i, (_, why) in enumerate(futures_of) if why]
    early = np.array([len(states) >= EARLY.stop for states, _ in futures_of])
    rollouts = np.stack([states[: EARLY.stop] for states, _ in futures_of if len(states) >= EARLY.stop])
    sound = np.array([not why for _, why in futures_of])
    ours = np.stack([states for states, why in futures_of if not why])
    true = statistics(truth[:, 1:])
    inside = ((statistics(ours) >= true.min(0)) & (statistics(ours) <= true.max(0))).mean(0)
    ring, spacing = system.periodic, (system.grid().spacing,) * system.dimensions
    others = np.roll(truth, 1, 0)[sound, 1:]
    late = (s[:, STEPS // 2 :: EVERY] for s in (ours, truth[sound, 1:], others))
    spectra = [mean_spectrum(s, ring, spacing) for s in late]
    errors, floor = (spectrum_errors(s, spectra[1]) for s in (spectra[0], spectra[2]))
    near = truth[early, 1 : EARLY.stop + 1]
    held = np.asarray(persistence(truth[early, 0], EARLY.stop))
    return Found(
        1 - len(left) / TESTED,
        left[0] if left else "",
        float(np.nanmean(vrmse(rollouts[:, EARLY], near[:, EARLY]))),
        float(np.nanmean(vrmse(held[:, EARLY], near[:, EARLY]))),
        "; ".join(f"{name} {share:.0%}" for name, share in zip(names(system), inside, strict=True)),
        float(np.mean([e.error.value for e in errors.values()])),
        float(np.mean([e.error.value for e in floor.values()])),
        step,
        solver,
    )


def names(system: System) -> list[str]:
    return [f"{what} of {channel}" for what in ("mean square", "mean") for channel in system.channels]


def statistics(states: Array) -> Array:
    """Of the last half of trajectories (N, T, C, *space): mean square and mean of each channel, (N, 2 C)."""
    late = states[:, states.shape[1] // 2 :]
    over = (1, *range(3, states.ndim))
    return np.concatenate([np.square(late).mean(over), late.mean(over)], 1)


def main(*given: str) -> None:
    parser = parser_of("field_stability", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--only", nargs="*", default=list(SYSTEM_OF), help="systems")
    asked = parser.parse_args(given)
    torch.set_num_threads(1)
    out = []
    for name in asked.only:
        system = SYSTEM_OF[name]
        found = judged(system, trained(system, work_folder("stability"), asked.minutes))
        print(name, found, flush=True)
        out += rows(system, found, asked.minutes)
    if set(asked.only) == set(SYSTEM_OF):
        save("field_stability", out)


def rows(system: System, found: Found, minutes: float) -> list[Row]:
    n = f"{TESTED} starts, {STEPS:,} steps, one training of {minutes:g} minutes of one core"
    faster = found.solver / found.step
    what = system.title
    return [
        Row(
            what,
            "share of stable rollouts",
            f"{found.stable:.0%}",
            found.departure,
            None,
            "≥ 95%",
            found.stable >= 0.95,
            n,
        ),
        Row(
            what,
            "VRMSE at steps 13 to 30",
            f"{found.error:.3f}",
            f"first state held {found.persistence:.3f}",
            None,
            "< 1",
            found.error < 1,
            n,
        ),
        Row(what, "rollouts whose statistics lie within the truth's own range", found.within, n=n),
        Row(
            what,
            "error of the log spectrum, all thirds",
            f"{found.spectrum:.3f}",
            f"other true trajectories {found.floor:.3f}",
            n=n,
        ),
        Row(
            what,
            "seconds of a member-step",
            f"{found.step * 1e3:.2f} ms",
            f"solver {found.solver * 1e3:.2f} ms",
            faster,
            "≥ 5 x faster",
            faster >= 5,
            n,
        ),
    ]


BENCHMARKS = (Benchmark("field_stability", (), 25, main),)
