"""Data of a Python program: what a function returns, or any iterable, under a name by which it is known later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afresh.collect.columns import ColumnOptions, found_in_entry
from afresh.collect.record import Found, Rejection
from afresh.collect.sources import Fetched, Source, Unavailable
from afresh.collect.sources import folder as folders
from afresh.core import UserError
from afresh.data.objects import entries

PREFIX = "python:"
ABOUT = "data of a Python program, which only `afresh.collect_data` takes"


def accepts(place: str) -> bool:
    return place.startswith(PREFIX)


def absent(place: str, options: ColumnOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    raise Unavailable(
        f"only the program that has it can go on: call `afresh.collect_data` with it as {place}.", "python"
    )
    yield  # the function is a generator, like those of other sources


def of_object(data: Any) -> Source:
    """A source of an object, or of what a function without arguments returns: a list or an iterator of texts, images,
    sounds, rows {column: value}, pairs (example, label) and paths, or whatever else `train` takes. Its order must be
    the same each time that it is read."""

    def find(place: str, options: ColumnOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
        given = data() if callable(data) else data
        if not isinstance(given, list | tuple | Iterator):  # a data set, a frame, an array
            for number, entry in enumerate(entries(given), 1):
                yield found_in_entry(place, f"item {number}", entry, options)
            return
        for number, value in enumerate(given, 1):
            yield from _found(place, f"item {number}", value, options, fetched)

    return Source("python", ABOUT, accepts, find, describe, ColumnOptions)


def _found(place: str, where: str, value: Any, options: ColumnOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """What a value of an iterable holds: one item, or several if it is a batch or the path of a folder."""
    try:
        if isinstance(value, Path):
            yield from folders.every(str(value), folders.FolderOptions())
            return
        for number, entry in enumerate(entries([value])):
            yield found_in_entry(place, f"{where}.{number}" if number else where, entry, options)
    except UserError as error:
        yield Rejection(place, where, "find", "rows", str(error))


def describe(place: str, options: ColumnOptions) -> list[str]:
    return [f"{place}: {ABOUT}"]


SOURCE = Source("python", ABOUT, accepts, absent, describe, ColumnOptions)
