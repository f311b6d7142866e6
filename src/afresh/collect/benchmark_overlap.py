"""Other data that is compared with a data set: read like a source, without rules, into a folder that is removed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from afresh.collect.record import Found, Rejection
from afresh.collect.sources import Fetched, Options, Source, source_of
from afresh.core import UserError

TABLES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


def other_source(place: str) -> Source:
    """What reads other data: of a table every row is a text, all of its columns that are texts, since any of them may
    be what a model is asked. Raises UserError for a place that cannot be read."""
    path = Path(place)
    return TABLE if path.is_file() and path.suffix.lower() in TABLES else source_of(place)


def find(place: str, options: Any, fetched: Fetched) -> Iterator[Found | Rejection]:
    try:
        for number, row in enumerate(_rows(Path(place)), 1):
            text = "\n".join(strings(row))
            if text.strip():
                yield Found(f"{Path(place).name}: row {number}", text)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"{place} cannot be read as a table: {error}. Mend the file, or give other data: a table of "
            f"{', '.join(sorted(TABLES))}, a folder, or another data set.",
            "not_a_table",
        ) from None


def _rows(path: Path) -> Iterator[Any]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1_000):
                yield from batch.to_pylist()
    elif suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    elif suffix == ".json":
        found = json.loads(path.read_text(encoding="utf-8"))
        yield from found if isinstance(found, list) else [found]
    else:
        with path.open(encoding="utf-8", newline="") as table:
            yield from csv.DictReader(table, delimiter="\t" if suffix == ".tsv" else ",")


def strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, in order; not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def describe(place: str, options: Any) -> list[str]:
    return [f"{place}: a table of {Path(place).stat().st_size:,} bytes"]


TABLE = Source("other table", "a table", lambda place: False, find, describe, Options)
