"""The list of hashes of a run lacks what is being changed, whenever the command that changes it is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.runs.manifest import (
    FILE,
    LEARNT,
    RECORD,
    REPORTED,
    changing,
    files_of,
    is_part,
    manifest_faults,
    read_manifest,
    write_record,
)
from tests.durable import disk


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished and measured run, as far as its list of hashes is concerned."""
    for name in ("encoder/e.json", "metrics.jsonl", "samples/1.txt", "report.html", "adapter/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    write_record(tmp_path, {"a": 1})
    for parts in (LEARNT, REPORTED):
        with changing(tmp_path, parts):
            pass
    return tmp_path


def listed(run: Path) -> set[str]:
    return set(read_manifest(run) or {})


@pytest.mark.parametrize(
    ("parts", "gone"), [(LEARNT, {"metrics.jsonl", "samples/1.txt", "adapter/a"}), (REPORTED, {"report.html"})]
)
def test_what_is_changed_leaves_the_list_before_and_enters_it_after(
    run: Path, parts: tuple[str, ...], gone: set[str]
) -> None:
    whole = listed(run)
    assert whole >= gone
    with changing(run, parts):
        assert listed(run) == whole - gone
        for name in gone:
            (run / name).write_text("half")
        assert manifest_faults(run) == [], "a command that is killed here leaves a list that is right"
    assert listed(run) == whole and manifest_faults(run) == []


def test_without_its_record_a_run_has_no_list(run: Path) -> None:
    with changing(run, (RECORD,)):
        assert read_manifest(run) is None
        (run / RECORD).write_text("new")
    assert manifest_faults(run) == [] and RECORD in listed(run)


def test_a_change_that_fails_enters_what_is_there(run: Path) -> None:
    with pytest.raises(KeyError), changing(run, LEARNT):
        (run / "metrics.jsonl").write_text("more")
        (run / "samples" / "1.txt").unlink()
        raise KeyError
    assert manifest_faults(run) == [] and "samples/1.txt" not in listed(run)


def test_what_is_added_changed_or_missing_is_named(run: Path) -> None:
    (run / "samples" / "2.txt").write_text("more")
    (run / "metrics.jsonl").write_text("changed")
    (run / "report.html").unlink()
    faults = sorted(manifest_faults(run))
    assert [fault.split()[0] for fault in faults] == ["metrics.jsonl", "report.html", "samples/2.txt"]


def test_half_written_files_and_links_are_no_files_of_a_run(run: Path) -> None:
    (run / "samples" / ".2.txt.7.tmp").write_text("half")
    (run / "samples" / "link").symlink_to("/etc/passwd")
    assert files_of(run, ("samples",)) == ["samples/1.txt"]


def test_the_list_is_on_the_disk_before_and_after_a_change(run: Path) -> None:
    with disk() as found, changing(run, LEARNT):
        assert found.renamed == [FILE]
    assert found.renamed == [FILE, FILE]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "samples/../../x", "samples//x", "./run.json", "other", "~"])
def test_only_paths_of_files_of_a_run_are_accepted(name: str, run: Path) -> None:
    assert not is_part(name) and is_part("samples/x") and is_part(RECORD)
    if name:
        (run / FILE).write_text(f"{'0' * 64}  {name}\n{'0' * 64}  {RECORD}\n")
        with pytest.raises(UserError, match="is not a file that a run consists of"):
            read_manifest(run)
