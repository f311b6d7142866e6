"""What columns are taken for, and what is said of those that cannot be learnt."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from afresh.core import Corpus, Omission, UserError
from afresh.domains.table.modality import MODALITY
from afresh.domains.table.reading import ReadingOptions, read_rows
from afresh.domains.table.row import Row
from tests.domains.table.people import NAMES, people, write


def read(path: Path, **options: Any) -> Corpus:
    return read_rows(path, ReadingOptions(**options))


def kinds(corpus: Corpus) -> dict[str, str]:
    header = corpus.items[0].value.header
    return dict(zip(header.names, header.kinds, strict=True))


def one_column(folder: Path, cells: list[Any], name: str = "x", **options: Any) -> Corpus:
    rows = [{"n": i % 7, name: c} for i, c in enumerate(cells)]
    return read(write(folder / "t.csv", rows), **options)


def test_kinds_are_worked_out(tmp_path: Path) -> None:
    found = kinds(read(write(tmp_path / "t.csv", people(200))))
    assert found == dict(
        zip(NAMES, ("number", "number", "category", "category", "date", "category", "number"), strict=True)
    )


def test_kinds_can_be_set_and_columns_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", people(200))
    corpus = read(path, categories=("age",), leave_out=("town",))
    assert kinds(corpus)["age"] == "category" and "town" not in kinds(corpus)
    again = read(path, **corpus.settled)
    assert [i.value for i in again.items] == [i.value for i in corpus.items]


LEFT_OUT = {
    "numbers of rows": ("x", list(range(1, 101)), "it numbers the rows"),
    "a key": ("customer_id", [7919 * i % 100_003 for i in range(100)], "it numbers the rows"),
    "names that never recur": ("x", [f"ab{i}" for i in range(100)], "like an identifier"),
    "free text": ("x", [f"this is the sentence number {i} of all" for i in range(100)], "free text"),
    "nothing": ("x", [""] * 100, "no value at all"),
    "whole numbers beyond floats": ("x", [10**17 + i * 977 for i in range(100)], "beyond 9,007"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_learnt_is_left_out_with_what_to_set(case: str, tmp_path: Path) -> None:
    name, cells, why = LEFT_OUT[case]
    corpus = one_column(tmp_path, cells, name)
    assert name not in kinds(corpus)
    (note,) = (n for n in corpus.notes if isinstance(n, Omission))
    assert why in note and f"`data.categories={name}`" in note
    if case != "nothing":
        assert kinds(one_column(tmp_path, cells, name, categories=(name,)))[name] == "category"


def test_postcodes_keep_their_zeros(tmp_path: Path) -> None:
    corpus = one_column(tmp_path, ["01067", "10115", "20095"] * 20)
    assert kinds(corpus)["x"] == "category" and corpus.items[0].value.cells[1] == "01067"


def test_a_constant_column_is_said(tmp_path: Path) -> None:
    assert any("'x' has one value in all rows ('k')" in n for n in one_column(tmp_path, ["k"] * 50).notes)


def test_a_column_that_determines_another_is_said_with_what_to_set(tmp_path: Path) -> None:
    notes = "\n".join(read(write(tmp_path / "t.csv", people(200))).notes)
    assert "'town' determines 'code' exactly" in notes and "`data.leave_out=town`" in notes
    assert "'age' determines" not in notes and "'member' determines" not in notes


def test_a_price_in_two_currencies_is_one_column_times_a_factor(tmp_path: Path) -> None:
    draw = random.Random(2)
    euros = [draw.randrange(100, 99_999) / 100 for _ in range(300)]
    rows = [{"eur": e, "usd": f"{e * 1.1:.2f}", "off": f"{e * 1.1 + draw.random():.2f}"} for e in euros]
    corpus = read(write(tmp_path / "t.csv", rows))
    assert "'eur' determines 'usd' exactly (times 1.1) in all 300 rows" in "\n".join(corpus.notes)
    assert "'off'" not in "\n".join(corpus.notes)
    encoder = MODALITY.fit(corpus.items, ReadingOptions())
    sizes = torch.tensor(encoder.sizes)
    tokens = (torch.rand(500, len(sizes), generator=torch.Generator().manual_seed(0)) * (sizes - 2)).long() + 2
    for eur, usd, _ in (row.cells for row in encoder.decode(tokens + torch.from_numpy(encoder.starts))):
        assert usd == round(1.1 * eur, 2)
    known = [Row(encoder.header, (1.0, usd, None)) for usd in (110.0, 22.55)]
    sourced = encoder.sourced(known, [[True, False, True]] * 2)
    assert [row.cells[0] for row in sourced] == [100.0, 20.5]


def test_equal_rows_all_count(tmp_path: Path) -> None:
    corpus = read(write(tmp_path / "t.csv", [{"a": i % 2, "b": "xy"[i % 2]} for i in range(50)]))
    assert len(corpus.items) == 50
    assert sorted(i.value.copy for i in corpus.items) == sorted([*range(25), *range(25)])


@pytest.mark.parametrize("option", ["numbers", "categories", "dates", "leave_out", "target"])
def test_a_column_that_does_not_exist_is_refused_with_those_that_do(option: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", people(30))
    value = "wage" if option == "target" else ("wage",)
    with pytest.raises(UserError, match=r"No column 'wage'.*age, height, town"):
        read(path, **{option: value})


def test_a_cell_of_another_kind_is_refused_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.csv, row 2: 'x' is set to hold numbers, but 'two' is not a number"):
        one_column(tmp_path, ["1", "two", "3"], numbers=("x",))
    with pytest.raises(UserError, match="two kinds"):
        one_column(tmp_path, ["1", "2"], numbers=("x",), categories=("x",))


def test_files_of_a_folder_must_have_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", people(20))
    write(tmp_path / "b.csv", people(20, seed=1))
    assert len(read(tmp_path).items) == 40
    write(tmp_path / "c.csv", [{"age": 3, "wage": 4}])
    with pytest.raises(UserError, match=r"different tables: 'height'.*'wage' only in the second"):
        read(tmp_path)


def test_other_formats_are_the_same_table(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": i % 5, "b": "xyz"[i % 3], "c": None if i % 4 else i / 8} for i in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with closing(sqlite3.connect(tmp_path / "t.db")) as base:
        base.execute("create table t (a integer, b text, c real)")
        base.executemany("insert into t values (:a, :b, :c)", rows)
        base.commit()
    cells = [[i.value.cells for i in read(tmp_path / name).items] for name in ("t.jsonl", "t.db")]
    assert cells[0] == cells[1] == [tuple(r.values()) for r in rows]
