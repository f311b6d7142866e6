"""A collection that is killed goes on to the same data set, and reads nothing again that was written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import afresh
from afresh.services.collect.dataset_store import SourceParts
from tests.services.collect.killed import collected, log_of
from tests.services.collect.test_near import edited, prose, written

pytestmark = pytest.mark.slow


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twenty texts, of which some are like others."""
    files = {f"{i:02d}.txt": prose(i) for i in range(16)} | {f"x{i}.txt": edited(prose(i)) for i in range(4)}
    return written(tmp_path / "texts", dict(files))


def test_killed_at_any_point_it_goes_on_to_the_same_digest(texts: Path, tmp_path: Path) -> None:
    ((_, digest, count),) = collected(texts, tmp_path / "whole", 0)
    assert count > 40
    # Before the first part is whole, between parts, and while the data set is assembled.
    *killed, (code, found, _) = collected(texts, tmp_path / "set", 7, count // 3, 12, 0)
    assert [k[0] for k in killed] == [-signal.SIGKILL] * 3 and code == 0
    assert found == digest


def test_what_was_written_is_not_read_again(texts: Path, tmp_path: Path) -> None:
    into = tmp_path / "set"
    collected(texts, into, 30)
    (key,) = [p.name for p in (into / "work").iterdir() if (p / "000000.json").exists()]
    parts = SourceParts(into, key)
    consumed = sum(parts.facts(n)["consumed"] for n in parts.names())
    assert 0 < consumed < 20
    collected(texts, into, 0)
    times = Counter(log_of(into).read_text().splitlines())
    assert sorted(times) == sorted(p.name for p in texts.iterdir())
    assert [times[name] for name in sorted(times)[:consumed]] == [1] * consumed


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_processes_end_with_the_one_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from afresh.services.collect.workers import workers\n"
        "if __name__ == '__main__':\n"
        "    with workers(2) as (pool, _):\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(afresh.__file__).parent.parent)}
    with subprocess.Popen([sys.executable, program], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = Path("/proc") / process.stdout.readline().strip()
        process.kill()
    until = time.monotonic() + 10
    while worker.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not worker.exists()
