"""Data of a Python program: functions, iterators and objects, given again to go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import afresh
from afresh.core import UserError
from afresh.core.events import Event, listening
from afresh.data.collected import rows
from tests.services.collect.sources.finding import STRICT


def stories(n: int = 6) -> Iterator[dict[str, str]]:
    for i in range(n):
        yield {"text": f"Story {i} of a river.", "author": f"ann{i}"}


def collect(data: Any, into: Path, **more: Any) -> list[dict[str, Any]]:
    afresh.collect_data(data, into, without_rules=STRICT, quiet=True, **more)
    return list(rows(into))


def test_what_a_function_returns_is_collected(tmp_path: Path) -> None:
    found = collect(stories, tmp_path / "set", name="mine", licence="CC0-1.0")
    assert [r["text"] for r in found] == [s["text"] for s in stories()]
    assert {(r["source"], r["licence"]) for r in found} == {("python:mine", "CC0-1.0")}
    assert [r["person"] for r in found][:2] == ["ann0", "ann1"]


def test_values_of_several_kinds_are_collected(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("A file.")
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    values = [
        "A text.",
        tmp_path / "in",
        {"text": "A row.", "label": "x"},
        ("A pair.", "y"),
        image,
        np.zeros((5, 5, 2)),
    ]
    found = collect(values, tmp_path / "set", name="mine")
    assert [(r["kind"], r["text"], r["label"]) for r in found] == [
        ("text", "A text.", ""),
        ("text", "A file.", ""),
        ("text", "A row.", "x"),
        ("text", "A pair.", "y"),
        ("image", None, ""),
    ]
    table = pa.table({"body": ["One.", "Two."], "n": [1, 2]})
    assert [r["text"] for r in collect(table, tmp_path / "table", name="t", options={"text": "body"})] == [
        "One.",
        "Two.",
    ]


def test_what_was_interrupted_goes_on_when_the_data_is_given_again(tmp_path: Path) -> None:
    whole = collect(stories, tmp_path / "whole", name="mine")
    assert len(collect(stories, tmp_path / "set", name="mine", max_items=2)) == 2
    said: list[Event] = []
    with listening(said.append):
        made = afresh.collect_data((), tmp_path / "set", resume=True)
    assert len(made["sources"]) == 1 and "only the program that has it can go on" in said[0].text
    assert collect(stories, tmp_path / "set", name="mine", resume=True) == whole


def test_paths_need_no_name_and_data_does(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.txt").write_text("Two.")
    assert len(collect([tmp_path / "a.txt", str(tmp_path / "b.txt")], tmp_path / "set")) == 2
    with pytest.raises(UserError, match="needs a name"):
        collect(stories, tmp_path / "other")
    with pytest.raises(UserError, match="which is not read"):
        collect(lambda: 3, tmp_path / "other", name="mine")
