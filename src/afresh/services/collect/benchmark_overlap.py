"""Other data that is compared with a data set: read like a source, without rules, into a folder that is removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.files import FileError, named
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source, source_of, tables

TABLES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


def other_source(place: str) -> Source:
    """What reads other data: of a table every row is a text, all of its columns that are texts, since any of them may
    be what a model is asked. Raises UserError for a place that cannot be read."""
    path = Path(place)
    return TABLE if path.is_file() and path.suffix.lower() in TABLES else source_of(place)


def find(place: str, options: Any, fetched: Fetched) -> Iterator[Found | Rejection]:
    path = Path(place)
    try:
        for number, row in tables.table(named(path), tables.TableOptions())[1]:
            if isinstance(row, str):
                raise FileError(f"row {number:,}: {row}")
            text = "\n".join(strings(row))
            if text.strip():
                yield Found(f"{path.name}: row {number}", text)
    except (OSError, FileError) as error:
        raise UserError(
            f"{place} cannot be read as a table: {error}. Mend the file, or give other data: a table of "
            f"{', '.join(sorted(TABLES))}, a folder, or another data set.",
            "not_a_table",
        ) from None


def strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, in order; not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from strings(inner)


def describe(place: str, options: Any) -> list[str]:
    return [f"{place}: a table of {Path(place).stat().st_size:,} bytes"]


TABLE = Source("other table", "a table", lambda place: False, find, describe, Options)
