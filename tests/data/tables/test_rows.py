"""Tables that cost more than their size suggests: numbers of many digits, many columns, many values."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from afresh.data import files
from afresh.data.files import DataFile, FileError
from afresh.data.tables import rows as tables
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.parquet import MOST_COLUMNS
from afresh.data.tables.rows import read_table


def test_numbers_of_thousands_of_digits_are_refused() -> None:
    long = "1" * 5000
    table = read_table(".jsonl", f'{{"text": "a"}}\n{{"text": {long}}}\n'.encode(), 1)
    assert [n for n, _ in table.rows] == [1] and "more than 4,300 digits" in table.bad[0][1]
    with pytest.raises(FileError, match="more than 4,300 digits"):
        read_table(".json", f"[{long}]".encode(), 1)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_thousands_of_columns_are_refused_at_once(suffix: str) -> None:
    """The time that reading takes grows with their number, not with its square."""
    names = [f"c{i}" for i in range(50_000)]
    mark = "\t" if suffix == ".tsv" else ","
    rows = f"{mark.join(names)}\n{mark.join('1' for _ in names)}\n"
    if suffix in (".jsonl", ".json"):
        rows = "\n".join(json.dumps({n: 1}) for n in names)
    with pytest.raises(FileError, match=f"50,000 columns, but at most {MOST_COLUMNS:,} are read"):
        read_table(suffix, rows.encode(), 1)


@pytest.mark.parametrize(("suffix", "text"), [(".jsonl", "[]\n" * 1000), (".json", "[{}]"), (".csv", "a,b\n1,2\n")])
def test_tables_that_need_more_memory_than_is_free_are_refused(
    suffix: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "available_memory", lambda: 100.0)
    with pytest.raises(FileError, match="of memory"):
        read_table(suffix, text.encode(), 1)


def test_a_large_table_is_recognised_by_its_first_rows(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    rows = 3 * tables.HEAD_ROWS
    parquet.write_table(pyarrow.table({"user": range(rows), "item": [f"i{i}" for i in range(rows)]}), file)
    found = tables.read_head(DataFile(file, file.name, file.stat().st_size))
    assert found.columns == ("user", "item") and found.texts == ("item",)
    assert [row["user"] for _, row in found.rows] == list(range(tables.HEAD_ROWS))


def test_a_line_without_end_and_rows_with_ever_new_columns_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows become batches, of which each column has a cell in every row."""
    monkeypatch.setattr(tables, "LONGEST", 1000)
    long = json.dumps({"user": "u", "item": "x" * 2000})
    (tmp_path / "long.jsonl").write_text(f'{{"user": "u", "item": "a"}}\n{long}\n{{"user": "u", "item": "b"}}\n')
    unusable = Unusable()
    [batch] = batches(DataFile(tmp_path / "long.jsonl", "long.jsonl", 0), unusable)
    assert batch.column("item").to_pylist() == ["a", "b"]
    assert [r.source for r in unusable.refused("long.jsonl")] == ["long.jsonl, row 2"]
    lines = (json.dumps({f"c{i}": 1}) for i in range(MOST_COLUMNS + 1))
    (tmp_path / "wide.jsonl").write_text("\n".join(lines))
    with pytest.raises(FileError, match="at most 10,000 are read"):
        list(batches(DataFile(tmp_path / "wide.jsonl", "wide.jsonl", 0), Unusable()))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_header_says_what_separates_fields(separator: str, tmp_path: Path) -> None:
    rows = f'text{separator}n\n"a, b; c"{separator}1\n"d{separator}e"{separator}2\n'
    (tmp_path / "a.csv").write_text(rows)
    whole, head = read_table(".csv", rows.encode(), 1), tables.read_head(DataFile(tmp_path / "a.csv", "a.csv", 0))
    [batch] = batches(DataFile(tmp_path / "a.csv", "a.csv", 0), Unusable())
    assert [dict(row) for _, row in whole.rows] == [dict(row) for _, row in head.rows] == batch.to_pylist()
    assert whole.columns == ("text", "n") and whole.texts == ("text",) and len(whole.rows) == 2
