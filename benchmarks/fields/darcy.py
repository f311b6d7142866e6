"""Pressure of Darcy flow from the permeability, 16x16: an ensemble and its regression beside neuraloperator's FNO in
the same minutes of one core. 800 pairs to learn from, the last 200 of the file to be judged by."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Cond
from afresh.domains.field.calibration import coverage, ranks, spread_and_error, spread_skill
from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.rollout import futures
from afresh.domains.field.scores import over_trajectories, relative_l2
from afresh.engine.evaluation.estimate import Estimate
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.results import Row, save
from benchmarks.fields.peers.fno import Ask

DATA, LEARNT, MEMBERS, MINUTES = "pde_neuralop", 800, 16, 5.0
OURS = {"ensemble": (), "regression": ("--set", "family.members=1")}
CONTENDERS = ("ensemble", "fno", "regression")
Array = NDArray[np.float64]


def train(name: str, root: Path, minutes: float, core: int) -> None:
    folder = root / f"{name}-{minutes:g}"
    if name == "fno":
        data, starts = str(root / "pairs.npz"), str(root / "inputs.npy")
        ask = Ask(data, starts, 1, 60 * minutes, 1, modes=[16, 16], width=32, change=False)
        processes.ask("benchmarks.fields.peers.fno", ask, folder, core=core)
    else:
        command = ["afresh", "train", str(root / "learnt.npz"), "--modality", "field", "--minutes", f"{minutes:g}"]
        more = ["--out", str(folder), "--force", "--no-measure", *OURS[name]]
        processes.run([*command, *more], root / f"{name}.log", core=core)


def drawn(name: str, root: Path, minutes: float, inputs: Array) -> Array:
    """Members (M, N, 1, 1, 16, 16) for inputs (N, 16, 16)."""
    folder = root / f"{name}-{minutes:g}"
    if name == "fno":
        return np.load(folder / "states.npy")[None].astype(np.float64)
    run = Run.open(folder)
    encoder = run.encoder
    assert isinstance(encoder, FieldEncoder)
    (what,) = encoder.static
    state = np.zeros((0, *encoder.space.shape), np.float32)
    conds = [encoder.conditions(state, {what: x[None].astype(np.float32)}, {}) for x in inputs]
    members = 1 if name == "regression" else MEMBERS
    (x,) = futures(run, encoder, Cond.cat(conds).repeat(members), 1, 0)
    fields = encoder.physical(x).reshape(len(inputs), members, 1, *encoder.space.shape)
    return fields.swapaxes(0, 1).astype(np.float64)


def main(*given: str) -> None:
    parser = parser_of("field_darcy", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    asked = parser.parse_args(given)
    root = work_folder("darcy")
    with np.load(data_folder(DATA) / "darcy_train_16.npz") as z:
        x, y = z["x"].astype(np.float32), z["y"]
    np.savez(root / "learnt.npz", x=x[:LEARNT], y=y[:LEARNT])
    np.savez(root / "pairs.npz", x=x[:LEARNT, None], y=y[:LEARNT, None])
    np.save(root / "inputs.npy", x[LEARNT:, None])
    with ThreadPoolExecutor(2) as pool:
        for first in range(0, len(CONTENDERS), 2):
            two = CONTENDERS[first : first + 2]
            jobs = [pool.submit(train, name, root, asked.minutes, core) for core, name in enumerate(two)]
            for job in jobs:
                job.result()
    torch.set_num_threads(1)
    truth = y[LEARNT:, None, None].astype(np.float64)
    found = {name: drawn(name, root, asked.minutes, x[LEARNT:]) for name in CONTENDERS}
    errors = {name: over_trajectories(relative_l2(f.mean(0), truth)[:, 0]) for name, f in found.items()}
    for name, e in errors.items():
        print(name, f"{e.value:.4f} ({e.low:.4f} to {e.high:.4f})", flush=True)
    save("field_darcy", rows(errors, found["ensemble"], truth, asked.minutes))


def rows(errors: dict[str, Estimate], ensemble: Array, truth: Array, minutes: float) -> list[Row]:
    n = f"{len(truth)} held-out pairs, one training each of {minutes:g} minutes of one core"
    ours, fno = errors["ensemble"].value, errors["fno"].value
    ratio = spread_skill(spread_and_error(ensemble, truth))[0].value
    held = coverage(ranks(ensemble, truth), 0.9)[0].value
    return [
        Row(
            "Darcy flow 16x16",
            "relative L2 error",
            f"{ours:.4f}; regression {errors['regression'].value:.4f}",
            f"fno {fno:.4f}",
            ours / fno,
            "≤ 1 x fno",
            ours <= fno,
            n,
        ),
        Row(
            "Darcy flow 16x16",
            "spread-skill ratio; coverage of 90% intervals",
            f"{ratio:.2f}; {held:.2f}",
            n=n,
        ),
    ]


BENCHMARKS = (Benchmark("field_darcy", ("pde_neuralop",), 12, main),)
