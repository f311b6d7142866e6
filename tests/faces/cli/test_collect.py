"""`afresh collect`: how a data set is assembled is chosen by flags, kept, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afresh.data.collected import rows
from tests.faces.cli.conftest import Invoke, parsed
from tests.services.collect.test_near import edited, prose, written


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twelve texts and an edit of the third."""
    return written(tmp_path / "texts", {f"{i:02d}.txt": prose(i) for i in range(12)} | {"x.txt": edited(prose(2))})


def test_near_duplicates_are_dropped_or_kept(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("collect", texts, "--into", tmp_path / "set", "--heldout", "0.3")
    assert code == 0 and "12 items of the kind text" in printed and "left out: 1 by duplicates/near" in printed
    made = parsed(invoke("collect", "--into", tmp_path / "set", "--set", "near=keep", "--json")[1])
    assert made["items"] == {"text": 13} and made["left_out"] == {}
    sides = {r["where"]: r["split"] for r in rows(tmp_path / "set")}
    assert sides["x.txt"] == sides["02.txt"] and set(sides.values()) == {"train", "validation"}
    again = parsed(invoke("collect", "--into", tmp_path / "set", "--json")[1])
    assert again["digest"] == made["digest"], "what was chosen is kept"


def test_what_occurs_in_a_benchmark_is_said(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    table = tmp_path / "questions.jsonl"
    table.write_text(json.dumps({"question": prose(4)}) + "\n")
    code, printed, _ = invoke("collect", texts, "--into", tmp_path / "set", "--against", table)
    assert code == 0 and f"in common with {table}: 1 exact" in printed
    made = parsed(invoke("collect", "--into", tmp_path / "set", "--leaks", "drop", "--json")[1])
    assert made["left_out"] == {"leakage/exact": 1, "duplicates/near": 1} and made["leakage"] == {
        str(table): {"exact": 1}
    }
    assert parsed(invoke("collect", "--into", tmp_path / "set", "--against", "", "--json")[1])["leakage"] == {}


def test_a_dry_run_names_a_source_that_is_wrong_and_describes_the_others(
    texts: Path, tmp_path: Path, invoke: Invoke
) -> None:
    unclear = tmp_path / "unclear.jsonl"
    unclear.write_text('{"one": "first", "two": "second"}\n')
    code, printed, said = invoke("collect", unclear, texts, "--dry-run")
    assert code == 2 and f"{texts}: 13 files" in printed and "option text=COLUMN" in printed
    assert "1 source cannot be collected so" in said and not (tmp_path / "set").exists()
    assert invoke("collect", texts, "--dry-run")[0] == 0


def test_without_a_folder_for_the_data_set_it_is_said_how_to_name_one(texts: Path, invoke: Invoke) -> None:
    code, _, said = invoke("collect", texts)
    assert code == 2 and "Name the folder of the data set with --into, as --into data" in said


def test_of_many_sources_some_are_listed_and_the_rest_are_counted(tmp_path: Path, invoke: Invoke) -> None:
    tables = [tmp_path / f"{i:02d}.jsonl" for i in range(14)]
    for i, table in enumerate(tables):
        table.write_text(json.dumps({"text": prose(i)}) + "\n")
    assert invoke("collect", *tables, "--into", tmp_path / "set")[0] == 0
    code, printed, _ = invoke("data", tmp_path / "set")
    assert code == 0 and "source: and 2 sources more" in printed
    assert sum(str(table) in printed for table in tables) == 12


def test_a_source_of_which_nothing_is_kept_is_listed_too(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "a.xyz").write_bytes(b"\0\1")
    invoke("collect", texts, tmp_path / "rubbish", "--into", tmp_path / "set")
    assert f"{tmp_path / 'rubbish'}: 0 items (nothing of it is kept)" in invoke("data", tmp_path / "set")[1]


def test_a_choice_that_there_is_not_is_refused(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, _, said = invoke("collect", texts, "--into", tmp_path / "set", "--set", "split_by=colour")
    assert code == 2 and "'group', 'person', 'cluster' or 'time', given 'colour'" in said
    code, _, said = invoke("collect", texts, "--into", tmp_path / "set", "--heldout", "1.5")
    assert code == 2 and "heldout" in said
