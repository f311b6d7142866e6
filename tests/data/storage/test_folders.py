"""A place that exists is refused or replaced; what was there goes only once something complete takes its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.storage.folders import check_free, move_folder, new_folder, output_folder, set_aside, write_folder
from tests.durable import disk

MARKS = ("result.json",)


def content(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An earlier result."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "result.json").write_text("old")
    (folder / "7.png").write_text("old")
    return folder


def test_what_is_there_is_refused_by_name(out: Path, tmp_path: Path) -> None:
    for place in (out, out / "7.png"):
        with pytest.raises(UserError, match=rf"{place} exists.*`force=True`"):
            check_free(place, force=False)
        check_free(place, force=True)
    check_free(tmp_path / "new", force=False)
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty", force=False)


def test_an_earlier_result_is_replaced_as_a_whole(out: Path) -> None:
    with output_folder(out, MARKS) as folder:
        folder.mkdir()
        (folder / "result.json").write_text("new")
        assert content(out)["result.json"] == "old", "the old one stays until the new one is complete"
    assert content(out) == {"result.json": "new"} and list(out.parent.iterdir()) == [out]


def test_a_failure_leaves_the_earlier_result(out: Path) -> None:
    with pytest.raises(KeyError), output_folder(out, MARKS) as folder:
        folder.mkdir()
        (folder / "result.json").write_text("new")
        raise KeyError
    assert content(out) == {"result.json": "old", "7.png": "old"} and list(out.parent.iterdir()) == [out]


def test_other_things_in_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with output_folder(tmp_path, MARKS) as folder:
        (folder / "result.json").write_text("new")
    assert content(tmp_path) == {"thesis.tex": "mine", "result.json": "new"}


def test_what_a_killed_process_left_is_removed_and_what_another_one_writes_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rest, other = (tmp_path / f".out.{process}.tmp" for process in (ended.pid, os.getppid()))
    for folder in (rest, other):
        folder.mkdir()
        (folder / "half").write_text("half")
    write_folder(tmp_path / "out", {"result.json": b"new"}.items())
    assert content(tmp_path / "out") == {"result.json": "new"} and sorted(tmp_path.iterdir()) == [
        other,
        tmp_path / "out",
    ]


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    with disk() as found:
        write_folder(tmp_path / "new" / "a", {"x": b"1", "y": b"2"}.items())
        (tmp_path / "bin").mkdir()
        move_folder(tmp_path / "new" / "a", tmp_path / "bin" / "a")
    assert found.renamed == ["a", "a"] and content(tmp_path / "bin" / "a") == {"x": "1", "y": "2"}


def test_what_appeared_meanwhile_is_not_replaced_unless_it_is_to_be(out: Path) -> None:
    with pytest.raises(FileExistsError), new_folder(out) as folder:
        folder.mkdir()
    assert content(out)["result.json"] == "old" and list(out.parent.iterdir()) == [out]
    write_folder(out, {"result.json": b"new"}.items(), replace=True)
    assert content(out) == {"result.json": "new"} and list(out.parent.iterdir()) == [out]


def test_a_file_gives_way_to_a_folder_that_is_to_replace_it(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    write_folder(tmp_path / "out", {"a": b"new"}.items(), replace=True)
    assert content(tmp_path / "out") == {"a": "new"} and len(list(tmp_path.iterdir())) == 1


def test_what_is_put_aside_is_back_where_the_new_one_fails(out: Path) -> None:
    aside = out.with_name("aside")
    with pytest.raises(KeyError), set_aside(out, aside):
        assert not out.exists() and content(aside)["result.json"] == "old"
        raise KeyError
    assert content(out)["result.json"] == "old" and not aside.exists()
