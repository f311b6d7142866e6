"""Data sets that were collected before, with what is known of each of their items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from afresh.core.plural import counted
from afresh.data.arrow import MAX_MB
from afresh.data.collected import ITEMS, SCHEMA, content_file, is_collected, manifest
from afresh.data.files import FileError, read_bytes
from afresh.data.limits import parsing
from afresh.data.tables.parquet import stream_parquet
from afresh.services.collect.record import About, Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source

COLUMNS = SCHEMA.names
ABOUT = tuple(name for name in About.__dataclass_fields__ if name != "extra")


class CollectedOptions(Options):
    """`split`: only of this side, as `validation`; empty for both."""

    split: str = Field(default="", pattern="^(train|validation|)$")


def accepts(place: str) -> bool:
    return is_collected(Path(place))


def find(place: str, options: CollectedOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every item. The data set may come from another user, and is trusted as little as any other file."""
    folder = Path(place)
    for number, row in enumerate(stream_parquet(folder / ITEMS, MAX_MB, lambda schema: COLUMNS), 1):
        if options.split and row["split"] != options.split:
            continue
        try:
            with parsing("item"):
                yield _found(folder, row)
        except FileError as error:
            yield Rejection(place, f"item {number}", "find", "rows", str(error))


def _found(folder: Path, row: Mapping[str, Any]) -> Found:
    about = About(**{name: row[name] or "" for name in ABOUT}, extra=dict(row["extra"] or ()))
    if not row["file"]:
        return Found(row["where"], row["text"] or "", about=about, kind=row["kind"])
    try:
        content = read_bytes(content_file(folder, row["file"]), MAX_MB)
    except FileError as error:
        raise FileError(f"its file {row['file']!r} is not one of the data set: {error}") from None
    return Found(row["where"], content, row["file"], about=about, kind=row["kind"])


def describe(place: str, options: Any) -> list[str]:
    kinds = manifest(Path(place)).get("items")
    known = kinds if isinstance(kinds, dict) else {}  # of somebody else's, it may be anything
    counts = [f"{counted(number, 'item')} of the kind {kind}" for kind, number in known.items()]
    return [f"{place}: {', '.join(counts)}"]


SOURCE = Source("collected", "a data set that was collected before", accepts, find, describe, CollectedOptions)
