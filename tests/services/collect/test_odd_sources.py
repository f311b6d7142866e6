"""Four hundred odd sources: none hangs, none takes much memory, none ends a collection, and each has its reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import afresh
from tests.services.collect.odd_sources import GROUPS

ROOT = Path(__file__).parents[3]
MOST = 1 << 30  # bytes that a process takes at its peak


def collected(folder: Path, group: str) -> tuple[list[dict[str, Any]], str]:
    """What became of each source of a group, and how the process ended."""
    paths = os.pathsep.join([str(Path(afresh.__file__).parent.parent), str(ROOT)])
    command = [sys.executable, "-m", "tests.services.collect.odd_sources", str(folder), group]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines, f"status {done.returncode} after {lines[-1:]}: {done.stderr[-2_000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_odd_sources_end_no_collection(group: str, tmp_path: Path) -> None:
    lines, how = collected(tmp_path, group)
    assert lines and "peak" in lines[-1], how  # or one of them hung, or was killed for what it takes
    assert lines[-1]["peak"] < MOST
    ended = {line["name"]: line for line in lines if "name" in line}
    assert sorted(ended) == sorted(name for name, _ in GROUPS[group]())
    assert not [name for name, line in ended.items() if not line["good"]]
    assert not [name for name, line in ended.items() if line["items"] < 2 and not line["reasons"]]


def test_there_are_four_hundred() -> None:
    assert sum(1 for group in GROUPS.values() for _ in group()) >= 400
