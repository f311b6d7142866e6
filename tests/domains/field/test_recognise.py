"""What is recognised as fields, and what is left to images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afresh.domains.field.modality import recognise
from tests.domains.field.waves import waves

U = waves(6, 20, 1, (24,))[:, :, 0]


@pytest.mark.parametrize(
    "arrays",
    [
        {"u": U, "t": np.arange(20.0), "x": np.arange(24.0)},
        {"x": U[:, 0] > 0, "y": U[:, 1]},
        {"u": U},
        {"u": np.zeros((4, 10, 3, 8, 8))},
        {"psi": U.astype(np.complex64)},
    ],
)
def test_fields_are_recognised(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert recognise(tmp_path / "a.npz").score > 0.9 and recognise(tmp_path).score > 0.9


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((30, 8, 8), np.uint8), "y": np.arange(30) % 10},
        {"x_train": np.random.default_rng(0).random((30, 8, 8, 3))},
        {"images": np.random.default_rng(0).integers(0, 256, (30, 8, 8)).astype(np.float32)},
        {"a": np.arange(10.0)},
    ],
)
def test_images_and_lists_are_left_to_others(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert recognise(tmp_path / "a.npz").score < 0.5


def test_other_paths_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    assert recognise(tmp_path).score == 0
    np.savez(tmp_path / "a.npz", u=U, t=np.arange(20.0), x=np.arange(24.0))
    assert 0.4 < recognise(tmp_path).score < 0.5  # one of two files
