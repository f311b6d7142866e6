"""Trajectories of the systems with a solver, as files that this domain reads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from afresh.core.data_maker import DataMaker, MakerSetting
from afresh.core.plural import counted
from afresh.data.storage.files import replace_file
from afresh.domains.field.systems import SYSTEMS
from afresh.domains.field.systems.system import System

TRAJECTORIES, STEPS = 50, 50
MOST = 1 << 20
AXES = ("x", "y", "z")
FILE = "states.npz"


def settings_of(system: System) -> dict[str, MakerSetting]:
    """Those of every system, and the parameters of its equation."""
    return {
        "trajectories": MakerSetting("how many begin at other states", TRAJECTORIES, 1, MOST, whole=True),
        "steps": MakerSetting("states that follow the first", STEPS, 1, MOST, whole=True),
        "points": MakerSetting("along each axis", system.points, system.least_points, 4096, whole=True),
        "first": MakerSetting("the number of the first trajectory, for other ones", 0, 0, MOST, whole=True),
        **{k: MakerSetting(p.about, p.default, p.lowest, p.highest) for k, p in system.parameters.items()},
    }


def make(system: System, folder: Path, settings: Mapping[str, float], seed: int) -> list[str]:
    """Compute trajectories and write them as one file. Raises UserError for settings that cannot be computed."""
    trajectories, steps, points, first = (int(settings[k]) for k in ("trajectories", "steps", "points", "first"))
    parameters = {name: settings[name] for name in system.parameters}
    states = system.states(seed, trajectories, steps, points, parameters, first)
    line = system.grid(points).spacing * np.arange(points)
    arrays = {name: states[:, :, c] for c, name in enumerate(system.channels)}
    arrays |= {"t": system.step * np.arange(steps + 1)} | dict.fromkeys(AXES[: system.dimensions], line)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(folder / FILE, buffer.getvalue())
    grid = " x ".join([f"{points:,}"] * system.dimensions)
    return [
        f"{system.title}: {counted(trajectories, 'trajectory', 'trajectories')} of {counted(steps + 1, 'state')} on "
        f"{grid} points, {system.step:g} in time apart",
        f"follows {system.paper}",
    ]


MAKERS = {
    name: DataMaker(system.about, system.paper, settings_of(system), partial(make, system))
    for name, system in SYSTEMS.items()
}
