"""Tables that cost more than their size suggests: numbers of many digits, many columns, many values."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from afresh.data import files
from afresh.data.files import DataFile, FileError
from afresh.data.parquet import MOST_COLUMNS
from afresh.data.tables import rows as tables
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
