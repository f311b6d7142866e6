"""What every test process has in common: one thread, no accelerator and no network, whatever the machine has.

`make test` runs as many processes as there are cores to use, so that a second thread in each would only wait.
"""

from __future__ import annotations

import gc
import html
import os
import subprocess
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import IO, Any

import pytest

from tests.warm import Process, Warm

os.environ |= {  # before torch is imported; processes that tests start inherit it
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "AFRESH_MARK_WORKS": "false",  # so that samples are those of their seed alone; tests/marks has it on
}


gc.disable()  # until all modules of tests are imported


def pytest_collection_finish() -> None:
    """What was imported is not looked through for garbage any more, which took a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Empty folders of the user's configuration and data, also for processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def reports_are_short() -> Iterator[None]:
    """Every command that trains ends with a report, whose samples and charts take longer than a few steps of a tiny
    model. Charts are drawn in tests/engine/evaluation; here there is what they say to a screen reader."""
    from afresh.engine.evaluation import curves, report
    from afresh.verbs import report as run_report

    def described(chart: curves.Curves, key: str) -> str:
        return f'<svg role="img" aria-label="{html.escape(curves.describe(chart))}"></svg>'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_curves", described)
        patch.setattr(run_report, "MAX_IMAGES", run_report.FEW_IMAGES)
        yield


@pytest.fixture(scope="session", autouse=True)
def do_not_wait_for_the_disk() -> Iterator[None]:
    """os.fsync and os.sync do nothing: they protect from a loss of power, which no test can bring about. Where the
    order of the calls matters, it is followed (tests/durable.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(scope="session")
def warm() -> Warm:
    """Starts processes that have imported what commands need."""
    return Warm()


@pytest.fixture
def warm_jobs(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in the background are forks."""

    def fork(command: Sequence[str], stdin: int, stdout: IO[bytes], stderr: IO[bytes], **how: Any) -> Process:
        return warm.start(*command[2:], stdin=stdin, stdout=stdout, stderr=stderr, keep=how["pass_fds"])

    from afresh.verbs import jobs

    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=fork, DEVNULL=subprocess.DEVNULL))
