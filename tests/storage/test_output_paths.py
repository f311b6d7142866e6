"""A place that exists is refused or replaced; what was there goes only once something complete takes its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.storage.output_paths import check_free, filled

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
    with filled(out, MARKS) as folder:
        folder.mkdir()
        (folder / "result.json").write_text("new")
        assert content(out)["result.json"] == "old", "the old one stays until the new one is complete"
    assert content(out) == {"result.json": "new"} and list(out.parent.iterdir()) == [out]


def test_a_failure_leaves_the_earlier_result(out: Path) -> None:
    with pytest.raises(KeyError), filled(out, MARKS) as folder:
        folder.mkdir()
        (folder / "result.json").write_text("new")
        raise KeyError
    assert content(out) == {"result.json": "old", "7.png": "old"} and list(out.parent.iterdir()) == [out]


def test_other_things_in_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with filled(tmp_path, MARKS) as folder:
        (folder / "result.json").write_text("new")
    assert content(tmp_path) == {"thesis.tex": "mine", "result.json": "new"}
