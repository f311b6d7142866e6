"""What belongs together is on one side of the split; both sides have items where that is possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.data.collected import rows
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.split_sides import SplitSides, border, moment
from tests.services.collect.test_near import prose, written


def row(**known: str) -> dict[str, Any]:
    return {"split": "", "time": "", "group": "", "person": "", "cluster": "c", **known}


def test_times_are_compared_whatever_their_form() -> None:
    assert moment("1970-01-01T01:00:00+01:00") == moment("1970-01-01") == moment("1970") == moment("1970-01") == 0
    assert moment("") is None and moment("yesterday") is None


def test_the_last_in_time_is_held_out() -> None:
    times = [row(time=f"20{year:02d}") for year in range(20)]
    sides = SplitSides("time", 0.2, border(times, 0.2))
    assert [sides.of(r) for r in times] == ["train"] * 16 + ["validation"] * 4
    assert sides.of(row()) == "train" and sides.of(row(time="1990", split="validation")) == "validation"
    same = [row(time="2001"), row(time="2001"), row(time="2002"), row(time="2002")]
    assert [SplitSides("time", 0.1, border(same, 0.1)).of(r) for r in same] == [
        "train",
        "train",
        "validation",
        "validation",
    ]
    for none in ([row()], [row(time="2001"), row(time="2001-01-01")], []):
        with pytest.raises(UserError, match="cannot be divided by time"):
            border(none, 0.1)


@pytest.mark.parametrize(("by", "column"), [("group", "group"), ("person", "person"), ("person", "group")])
def test_what_belongs_together_is_never_divided(by: str, column: str) -> None:
    sides = SplitSides(by, 0.3)
    found = {g: {sides.of(row(**{column: g, "cluster": f"{g}{i}"})) for i in range(9)} for g in map(str, range(40))}
    assert all(len(f) == 1 for f in found.values())
    assert {side for f in found.values() for side in f} == {"train", "validation"}
    assert len({SplitSides("cluster", 0.3).of(row(**{column: "g", "cluster": str(i)})) for i in range(40)}) == 2


@pytest.mark.parametrize("heldout", [0.0001, 0.9999])
def test_both_sides_have_items_though_there_are_few(heldout: float, tmp_path: Path) -> None:
    folder = written(tmp_path / "texts", {f"{who}/{i}.txt": prose(10 * who + i) for who in range(3) for i in range(3)})
    gather([place_of(str(folder), {"group": True})], tmp_path / "set", assembly={"heldout": heldout})
    sides: dict[str, set[str]] = {}
    for r in rows(tmp_path / "set"):
        sides.setdefault(r["group"], set()).add(r["split"])
    assert sorted(map(len, sides.values())) == [1, 1, 1]
    assert sorted(s for found in sides.values() for s in found) in (
        ["train", "train", "validation"],
        ["train", "validation", "validation"],
    )


def test_nothing_is_held_out_if_nothing_is_wanted(tmp_path: Path) -> None:
    folder = written(tmp_path / "texts", {f"{i}.txt": prose(i) for i in range(20)})
    gather([place_of(str(folder))], tmp_path / "set", assembly={"heldout": 0})
    assert {r["split"] for r in rows(tmp_path / "set")} == {"train"}
    gather([], tmp_path / "set", assembly={"heldout": 0.5})
    assert {r["split"] for r in rows(tmp_path / "set")} == {"train", "validation"}
