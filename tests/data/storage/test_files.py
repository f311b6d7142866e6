"""Files are on the disk before they take the place of others, and so are their names before anything relies on them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.storage.files import (
    append_lines,
    bytes_on_disk,
    new_file,
    replace_file,
    sync_tree,
    write_file,
    write_json,
)
from afresh.data.storage.folders import output_folder
from tests.durable import Disk, disk


def test_a_file_is_on_the_disk_when_it_was_written(tmp_path: Path) -> None:
    with disk() as found:
        write_file(tmp_path / "a", b"all of it")
        assert found.lost(tmp_path / "a") == []


def test_a_file_is_renamed_when_it_is_on_the_disk_and_its_folder_is_synced_after(tmp_path: Path) -> None:
    with disk() as found:
        replace_file(tmp_path / "new" / "a", b"first")
        replace_file(tmp_path / "new" / "a", b"second")
        write_json(tmp_path / "b.json", [1])
        with new_file(tmp_path / "c") as stream:
            stream.write(b"third")
    assert found.renamed == ["a", "a", "b.json", "c"]


def test_a_tree_is_synced_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "a").write_text("a")
    (tmp_path / "tree" / "b").write_text("b")
    with disk() as found:
        assert sorted(found.lost(tmp_path / "tree")) == ["a", "b", "deep", "tree"]
        sync_tree(tmp_path / "tree")
        assert found.lost(tmp_path / "tree") == []


def test_a_result_takes_the_place_of_an_earlier_one_when_it_is_on_the_disk(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with disk() as found:
        for text in ("old", "new"):
            with output_folder(out, ("mark",)) as folder:
                (folder / "deep").mkdir(parents=True)
                (folder / "deep" / "a").write_text(text)
                (folder / "mark").write_text(text)
    assert (out / "deep" / "a").read_text() == "new"
    assert found.renamed == ["out", found.renamed[1], "out"] and found.renamed[1].endswith(".old")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "a", b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="It needs 3 bytes"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_disk_of_these_tests_notices_what_is_not_synced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(AssertionError, match="is renamed before"), disk():
        (tmp_path / "a").rename(tmp_path / "b")
    found = Disk()
    assert found.lost(tmp_path / "a") == ["a"]


def test_lines_are_on_the_disk_and_a_line_that_was_cut_off_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with disk() as found:
        append_lines(log, b"1\n")
        assert found.lost(log) == [] and found.folders[tmp_path.stat().st_ino] == {"log.jsonl"}
        log.write_bytes(b"1\n2")
        append_lines(log, b"3\n4\n")
        assert found.lost(log) == []
    assert log.read_bytes() == b"1\n2\n3\n4\n"


def test_lines_that_cannot_be_written_leave_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.jsonl"
    append_lines(log, b"1\n")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        append_lines(log, b"2\n")
    append_lines(log, b"3\n", sync=False)
    assert log.read_bytes() == b"1\n3\n"


def test_a_tree_of_many_files_is_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("os.sync", lambda: called.append("sync"))
    monkeypatch.setattr("os.fsync", lambda handle: called.append("fsync"))
    monkeypatch.setattr("afresh.data.storage.files.MANY", 3)
    for name in "abcd":
        (tmp_path / name).write_text(name)
    sync_tree(tmp_path)
    assert called == ["sync"] or sys.platform != "linux"


def test_the_bytes_of_a_folder_are_those_of_its_files_and_of_links_themselves(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a").write_bytes(bytes(500))
    (tmp_path / "deep" / "b").write_bytes(bytes(70))
    (tmp_path / "deep" / "link").symlink_to("../a")
    assert bytes_on_disk(tmp_path) == 500 + 70 + len("../a")
