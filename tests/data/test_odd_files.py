"""Every odd file is refused with its reason, soon and in little memory, and the good file beside it is read.

The files are read in one process, whose memory and time the system bounds: what exceeds them ends in an error
that the test of that file reports, and not in a machine without memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError, events, registry
from afresh.data import arrow
from afresh.data.prepare import read_options
from afresh.data.sources import readable
from tests.odd_files import CASES, GOOD, MB
from tests.peak import peak_memory

MEMORY = 1024 * MB  # that reading a file may take, beside what the process took before
SECONDS = 10  # of the processor for one file
ALL_SECONDS = 120  # and for all
MODALITIES = {"chat": "text", "arrow": "text", "webdataset": "image"}
OPTIONS: dict[str, dict[str, Any]] = {"text": {"max_file_mb": 4}, "chat": {"max_file_mb": 4}}


def read_beside_a_good_file(name: str, folder: Path) -> dict[str, Any]:
    """What became of an odd file: items of good files, what was refused, and an error if reading ended in one."""
    case = CASES[name]
    good, content = GOOD[case.kind]
    (folder / good).write_bytes(content())
    case.make(folder)
    modality = registry.modality(MODALITIES.get(case.kind, case.kind))
    told: list[events.Event] = []
    began, held = time.process_time(), peak_memory()
    found: dict[str, Any] = {"good": 0, "refused": [], "error": ""}
    try:
        with events.listening(told.append):
            source = readable(folder, modality.name if case.kind != "arrow" else None)
            corpus = modality.read(source, read_options(modality, OPTIONS.get(case.kind, {})))
        aside = source != folder
        found["good"] = sum(aside or good in i.source for i in corpus.items)
        found["refused"] = [f"{r.source}: {r.reason}" for r in corpus.refused] + [e.text for e in told]
        json.dumps(found, ensure_ascii=False).encode()
    except UserError as error:
        found["error"] = f"UserError: {error}"
    except BaseException as error:
        found["error"] = f"{type(error).__name__}: {error}"
    found["seconds"] = time.process_time() - began
    found["memory"] = peak_memory() - held
    return found


def too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds of the processor")


def read_all(first: int) -> None:
    """Print what became of each odd file from a number on, one a line."""
    for kind, (good, content) in GOOD.items():
        with tempfile.TemporaryDirectory() as warm:
            (Path(warm) / good).write_bytes(content())
            modality = registry.modality(MODALITIES.get(kind, kind))
            source = readable(Path(warm), None if kind == "arrow" else modality.name)
            modality.read(source, read_options(modality, {}))
    arrow.UNPACKED = 16 * MB
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + ALL_SECONDS,) * 2)
    signal.signal(signal.SIGVTALRM, too_long)
    for name in [*CASES][first:]:
        print(json.dumps({"name": name}), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            found = read_beside_a_good_file(name, Path(folder))
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        print(json.dumps({"name": name, **found}), flush=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each odd file, which the first process of the tests that asks finds out for all."""
    root = tmp_path_factory.getbasetemp()
    file = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "odd-files.json"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(json.dumps(read_in_processes()))
    return dict(json.loads(file.read_text()))


def read_in_processes() -> dict[str, dict[str, Any]]:
    """What became of each odd file. A process that one of them ends is begun again after it."""
    found: dict[str, dict[str, Any]] = {}
    while len(found) < len(CASES):
        done = subprocess.run(
            [sys.executable, "-m", "tests.data.test_odd_files", str(len(found))],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        ended = {"error": f"the process ended with {done.returncode}: {done.stderr[-500:]}"}
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
        assert lines, ended
        found |= {line["name"]: {**ended, **line} if len(line) == 1 else line for line in lines}
    return found


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is bounded as on Linux")
@pytest.mark.parametrize("name", CASES)
def test_an_odd_file_is_refused_and_the_good_one_read(name: str, results: dict[str, dict[str, Any]]) -> None:
    case = CASES[name]
    found = results[name]
    assert not found["error"], found
    assert found["good"], found
    assert found["memory"] < MEMORY
    stem = case.file.split(".")[0]
    assert not case.refused or any(stem in line and len(line) > len(stem) + 8 for line in found["refused"]), found


def test_there_are_enough() -> None:
    assert len(CASES) >= 150


if __name__ == "__main__":
    read_all(int(sys.argv[1]))
