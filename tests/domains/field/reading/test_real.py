"""Real data sets are read as what they are; skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from afresh.domains.field.fields import Fields
from afresh.domains.field.reading.read import read_fields

DATA = Path(os.environ.get("AFRESH_DATA", "nowhere"))


def read(name: str) -> Fields:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in AFRESH_DATA")
    return read_fields(DATA / name).fields


@pytest.mark.parametrize(
    ("name", "shape", "step", "channels"),
    [
        ("AC.mat", (1, 201, 1, 512), 0.005, ("uu",)),
        ("KS.mat", (1, 201, 1, 512), 0.005, ("uu",)),  # the last of 513 points repeats the first
        ("KdV.mat", (1, 201, 1, 512), 0.005, ("uu",)),
        ("NLS.mat", (1, 201, 2, 256), 0.00785398, ("uu_real", "uu_imaginary")),
        ("burgers_shock.mat", (1, 100, 1, 255), 0.01, ("usol",)),
    ],
)
def test_reference_solutions(name: str, shape: tuple[int, ...], step: float, channels: tuple[str, ...]) -> None:
    fields = read(f"pde_pinns/{name}")
    assert tuple(fields.values.shape) == shape and fields.channels == channels
    assert fields.periodic == (True,) and fields.step == pytest.approx(step, rel=1e-5)


def test_pairs_of_operators() -> None:
    darcy = read("pde_neuralop/darcy_train_16.npz")
    assert tuple(darcy.values.shape) == (1000, 1, 1, 16, 16) and darcy.periodic == (False, False)
    assert darcy.static["x"].shape == (1000, 16, 16) and set(np.unique(darcy.static["x"])) == {0, 1}
    burgers = read("pde_neuralop/burgers_train_16.npz")
    assert tuple(burgers.values.shape) == (800, 17, 1, 16) and not burgers.static
    assert set(burgers.parameters) == {"visc"} and burgers.periodic == (True,)
