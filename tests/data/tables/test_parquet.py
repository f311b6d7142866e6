"""Parquet: rows as they were written, and files that decode to more than they may."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from afresh.core import UserError
from afresh.data import arrow_values, collected, files
from afresh.data.files import MB, FileError
from afresh.data.limits import Limits, Meter
from afresh.data.tables import parquet
from afresh.data.tables.parquet import MOST_COLUMNS, read_parquet, stream_parquet
from afresh.data.tables.parquet_pages import declared, pages
from afresh.domains.interactions import catalogue


def written(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def read(raw: bytes, max_mb: int = 8) -> list[dict[str, Any]]:
    return read_parquet(raw, max_mb, lambda schema: schema.names)


def test_rows_are_those_that_were_written() -> None:
    columns = {
        "text": ["é", "b" * 5000, None, "é"] * 2000,
        "n": [1, 2, 3, None] * 2000,
        "kind": pa.array(["a", "b", "a", "a"] * 2000).dictionary_encode(),
        "turns": [[{"role": "user", "content": "hi"}]] * 8000,
    }
    rows = read(written(columns, row_group_size=3000), 64)
    assert rows == pa.table(columns).to_pylist()
    assert read_parquet(written(columns), 64, lambda schema: ["n"])[:2] == [{"n": 1}, {"n": 2}]


def test_times_are_texts_whatever_they_are() -> None:
    times = {
        "day": pa.array([date(2024, 5, 1)]),
        "far": pa.array([10**8], pa.date32()),
        "fine": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "late": pa.array([2**60], pa.timestamp("ms")),
        "took": pa.array([5], pa.duration("ns")),
    }
    (row,) = read(written(times))
    assert (row["day"], row["fine"], row["took"]) == ("2024-05-01", "2023-11-14 22:13:20.123456789", 5)
    assert isinstance(row["far"], str) and isinstance(row["late"], str)


def test_equal_values_that_are_stored_once_count_as_often_as_they_occur() -> None:
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 1000]))
    raw = written({"text": one})
    assert len(raw) < 20_000
    with pytest.raises(FileError, match="more than 8 MB when decoded"):
        read(raw)
    nested = written({"messages": [[{"role": "user", "content": "y" * 100_000}]] * 200})
    assert len(nested) < 50_000
    with pytest.raises(FileError, match="more than 8 MB when decoded"):
        read(nested)


@pytest.mark.parametrize("packed", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_are_counted_as_they_unpack(packed: str, version: str) -> None:
    """By their own headers, whatever the end of the file declares."""
    columns = {"text": ["\0" * 1_000_000] * 4 + ["a"], "n": list(range(5))}
    raw = written(columns, compression=packed, data_page_version=version, use_dictionary=False, data_page_size=1000)
    assert read(raw) == pa.table(columns).to_pylist()
    meta = pyarrow.parquet.read_metadata(io.BytesIO(raw)).row_group(0).column(0)
    stop = meta.data_page_offset + meta.total_compressed_size
    found = list(pages(raw, meta.data_page_offset, stop, Meter(Limits())))
    assert 4_000_000 < sum(p.unpacked for p in found) < meta.total_uncompressed_size
    assert sum(p.values for p in found) == 5
    with pytest.raises(FileError, match="4 MB, but at most 3 MB"):
        read(raw, 3)


def test_too_many_rows_and_columns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = written({"a": pa.nulls(1_000_000, pa.int64())})
    assert len(raw) < 10_000
    with pytest.raises(FileError, match="1,000,000 rows are too many"):
        read(raw)
    with pytest.raises(FileError, match=f"{MOST_COLUMNS + 1:,} columns"):
        read(written({str(i): pa.nulls(1) for i in range(MOST_COLUMNS + 1)}))
    monkeypatch.setattr(files, "available_memory", lambda: 1000.0)
    with pytest.raises(FileError, match="of memory"):
        read(written({"a": [1] * 100}))


def test_damaged_files_are_refused() -> None:
    raw = written({"text": ["a"] * 100})
    for broken in (raw[:50], raw[:-6], b"PAR1", raw[:10] + b"\xff" * 20 + raw[30:]):
        with pytest.raises(FileError, match="damaged or unusual Parquet file"):
            read(broken)


def test_changed_bytes_end_neither_the_process_nor_in_a_traceback() -> None:
    """The library's own view of the sizes of columns ends the process for some of these."""
    raw = written({"text": ["aé", "b", None], "n": [1, 2, 3], "m": [[{"role": "user", "content": "x"}]] * 3})
    draw = random.Random(11)
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(draw.randint(1, 5)):
            changed[draw.randrange(len(raw))] = draw.choice([0, 127, 255, draw.randrange(256)])
        with suppress(FileError):
            read(bytes(changed))


def same(count: int, value: Any) -> pa.DictionaryArray:
    """A value that is stored once and occurs `count` times."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


def deep(levels: int) -> pa.Array:
    column = pa.array([1])
    for _ in range(levels):
        column = pa.StructArray.from_arrays([column], ["a"])
    return column


def one_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "equal rows": (lambda: written({"a": pa.nulls(5_000_000, pa.int64())}), "bomb"),
    "equal long texts": (lambda: written({"text": same(100_000, "x" * 100_000)}), "1,024 MB"),
    "a list in one row": (lambda: written({"m": one_list(same(2_000_000, "u" * 1000))}), "lists"),
    "numbers in one row": (lambda: written({"m": one_list(pa.nulls(5_000_000, pa.int64()))}), "bomb"),
    "a page of zeros": (lambda: written({"t": ["\0" * 12 * MB]}, compression="zstd", use_dictionary=False), "bomb"),
    "columns within columns": (lambda: written({"a": deep(70)}), "levels"),
    "a long row": (lambda: written({"m": one_list(pa.array(np.arange(500_000)))}), "a row takes"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_never_becomes_a_large_one(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parquet, "RATIO_FROM", 8 * MB)
    monkeypatch.setattr(arrow_values, "MOST_ROW", 16 * MB)
    made, reason = BOMBS[name]
    (tmp_path / "a.parquet").write_bytes(made())
    held = pa.total_allocated_bytes()
    with pytest.raises(FileError, match=reason):
        for _ in stream_parquet(tmp_path / "a.parquet", 4096, lambda schema: schema.names):
            assert pa.total_allocated_bytes() - held < 600 * MB


def test_texts_that_share_their_beginnings_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    texts = ["y" * 100_000 + str(i) for i in range(1000)]
    options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    (tmp_path / "a.parquet").write_bytes(written({"text": texts}, **options))
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    rows = stream_parquet(tmp_path / "a.parquet", 4096, lambda schema: schema.names)
    assert [row["text"] for row in rows] == texts


def test_parts_that_lie_over_each_other_are_refused() -> None:
    """Each group of rows would be read again from the same few bytes."""
    raw = written({"text": ["a" * 1000] * 64}, row_group_size=1, use_dictionary=False, compression="none")
    sizes = {c.stop - c.start for g in declared(raw).groups for c in g}
    assert sum(sizes) * 64 < len(raw) < 2 * sum(sizes) * 64
    with pytest.raises(FileError, match="overlap"):
        read(raw[:100] + raw[len(raw) - 8 - int.from_bytes(raw[-8:-4], "little") :])


def test_reading_takes_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "SECONDS", -1.0)
    with pytest.raises(FileError, match="seconds"):
        read(written({"a": [1]}))


def test_a_data_set_and_the_catalogue_of_a_run_may_be_those_of_others(tmp_path: Path) -> None:
    bomb = written({"item": pa.nulls(5_000_000, pa.int64()), "count": pa.nulls(5_000_000, pa.int64())})
    (tmp_path / collected.ITEMS).write_bytes(bomb)
    (tmp_path / catalogue.FILE).write_bytes(bomb)
    with pytest.raises(UserError, match=r"decompression bomb.*Restore"):
        list(collected.rows(tmp_path))
    with pytest.raises(UserError, match=r"decompression bomb.*Restore"):
        catalogue.load_catalogue(tmp_path)
