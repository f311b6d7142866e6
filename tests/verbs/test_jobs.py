"""Commands in processes of their own: they are found again, say how far they are, can be stopped, say how they end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.verbs import jobs
from afresh.verbs.jobs import BackgroundJob, JobOutcome


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(f"Once there was a cat number {i}." for i in range(60)))
    return file


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `afresh` that sleeps until it is interrupted stands in for the real one."""
    package = tmp_path / "other" / "afresh"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import json, time\n"
        "print(json.dumps({'event': 'progress', 'code': 'training', 'text': '', 'step': 1}), flush=True)\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print(json.dumps({'event': 'error', 'code': 'interrupted', 'text': 'saved'}), flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    # A shell starts what runs in its background with SIGINT ignored, which processes inherit; a server handles it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield package
    signal.signal(signal.SIGINT, before)
    for job in jobs.jobs():
        jobs.stop(job)
        jobs.stop(job)


def ended(job: BackgroundJob, seconds: float = 60) -> JobOutcome:
    until = time.monotonic() + seconds
    while jobs.is_running(job):
        assert time.monotonic() < until
        time.sleep(0.05)
    return jobs.outcome(job)


def begun(job: BackgroundJob) -> None:
    until = time.monotonic() + 60
    while jobs.outcome(job).progress is None:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_command_ends_with_its_result_and_is_found_again(texts: Path) -> None:
    job = jobs.start("data", [texts], {"near": None}, "Look", owner="ann", about={"name": "<b>"})
    assert [j.id for j in jobs.jobs()] == [job.id] and jobs.read(job.id) == job
    found = ended(job)
    assert found.state == "done" and found.result is not None and found.result["modality"] == "text"


def test_a_command_that_fails_says_why(tmp_path: Path, warm_jobs: None) -> None:
    found = ended(jobs.start("train", [tmp_path / "none"], {"no-measure": True, "minutes": 1}, "Train"))
    assert found.state == "failed" and "none" in found.error


def test_a_command_is_stopped_and_says_so(slow: Path) -> None:
    job = jobs.start("train", [], {}, "Train")
    begun(job)
    assert jobs.outcome(job).state == "running"
    with pytest.raises(UserError, match="is running"):
        jobs.forget(job)
    jobs.stop(job)
    assert ended(job).state == "stopped"
    jobs.stop(job)  # of one that has ended, nothing
    jobs.forget(job)
    assert jobs.jobs() == []


def test_a_command_that_was_killed_is_known_to_have_ended(slow: Path) -> None:
    job = jobs.start("train", [], {}, "Train")
    begun(job)
    os.kill(job.process, 9)
    found = ended(job)
    assert found.state == "failed" and "without saying why" in found.error


def test_only_so_many_run_at_once(slow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_RUNNING", 1)
    jobs.start("train", [], {}, "Learn photos")
    with pytest.raises(UserError, match="running already: Learn photos"):
        jobs.start("train", [], {}, "Another")
    with pytest.raises(UserError, match="running already for others") as error:
        jobs.check_room("bob")
    assert "photos" not in str(error.value)


@pytest.mark.parametrize("id", ["..", "../../etc", "0" * 15, "0" * 16, "a/b", "", "\0"])
def test_an_id_that_is_none_is_not_found(id: str) -> None:
    assert jobs.read(id) is None


def test_a_damaged_record_hides_no_other(folder: Path, texts: Path, warm_jobs: None) -> None:
    (folder / ("0" * 16)).mkdir(parents=True)
    (folder / ("0" * 16) / "job.json").write_text('{"id": 3}')
    job = jobs.start("data", [texts], {"near": None}, "Look")
    assert jobs.jobs() == [job]
    assert json.loads((job.folder / "job.json").read_text())["process"] == job.process
    ended(job)
