"""Families on a device without float64, in a process of their own: torch counts devices when it first computes a
gradient, so that the pretended device must exist before any other test has done so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_families_train_sample_and_are_aligned_on_a_device_without_float64() -> None:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "tests/without_float64.py"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout or "[100%]" in run.stdout
