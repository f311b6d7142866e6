"""Files are on the disk before they take the place of others, and so are their names before anything relies on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.storage.files import replace_file, replacement, sync_tree, write_file, write_json
from afresh.storage.output_paths import filled
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
        with replacement(tmp_path / "c") as stream:
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
            with filled(out, ("mark",)) as folder:
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
