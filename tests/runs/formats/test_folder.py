"""The folder of an export holds files and a proof, or is not there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import BaseModel

from afresh.core import UserError
from afresh.runs.formats.folder import write_proved


class Measured(BaseModel):
    passed: bool
    largest: float


def test_a_proof_of_numbers_that_are_not_finite_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    def write(folder: Path) -> Measured:
        (folder / "model.safetensors").write_bytes(b"weights")
        return Measured(passed=False, largest=math.inf)

    with pytest.raises(UserError, match="not finite"):
        write_proved(tmp_path / "out", write)
    assert list(tmp_path.iterdir()) == []
