"""Data sets that were collected before, with what is known of each of their items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from afresh.collect.record import About, Found
from afresh.collect.sources import Fetched, Options, Source
from afresh.core.counted import counted
from afresh.data.collected import is_collected, manifest, rows

ABOUT = tuple(name for name in About.__dataclass_fields__ if name != "extra")


class CollectedOptions(Options):
    """`split`: only of this side, as `validation`; empty for both."""

    split: str = Field(default="", pattern="^(train|validation|)$")


def accepts(place: str) -> bool:
    return is_collected(Path(place))


def find(place: str, options: CollectedOptions, fetched: Fetched) -> Iterator[Found]:
    for row in rows(Path(place)):
        if options.split and row["split"] != options.split:
            continue
        about = About(**{name: row[name] or "" for name in ABOUT}, extra=dict(row["extra"] or ()))
        if row["file"]:
            content = (Path(place) / row["file"]).read_bytes()
            yield Found(row["where"], content, row["file"], about=about, kind=row["kind"])
        else:
            yield Found(row["where"], row["text"] or "", about=about, kind=row["kind"])


def describe(place: str, options: Any) -> list[str]:
    kinds = manifest(Path(place))["items"]
    counts = [f"{counted(number, 'item')} of the kind {kind}" for kind, number in kinds.items()]
    return [f"{place}: {', '.join(counts)}"]


SOURCE = Source("collected", "a data set that was collected before", accepts, find, describe, CollectedOptions)
