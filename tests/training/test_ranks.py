"""Processes that train one run together compute what a single process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.rank_program import every, weights


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have after a few steps of every family."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "tests.training.rank_program", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize(("title", "space"), every())
def test_two_processes_have_the_bits_of_one_with_two_micro_batches(together: Path, title: str, space: str) -> None:
    alone = weights(title, space)
    for rank in (0, 1):
        theirs = load_file(together / f"{title}-{space}-{rank}.safetensors")
        assert alone.keys() == theirs.keys()
        assert not [name for name, v in alone.items() if not torch.equal(v, theirs[name])]
