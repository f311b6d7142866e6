"""Data of a Python program: what a function returns, or any iterable, under a name by which it is known later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from afresh.core import UserError
from afresh.data.files import FileError
from afresh.data.imported import ImportedItem
from afresh.data.in_memory import entries
from afresh.data.limits import parsing
from afresh.services.collect.columns import ColumnOptions, found_in_entry
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Source, Unavailable
from afresh.services.collect.sources import folder as folders

PREFIX = "python:"
Value = TypeVar("Value")
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
            given = entries(given)
        for number, value in enumerate(_values(given), 1):
            yield from _found(place, f"item {number}", value, options)

    return Source("python", ABOUT, accepts, find, describe, ColumnOptions)


def _values(given: Iterable[Value]) -> Iterator[Value]:
    """The values of an iterable of the program. What it raises is the program's to mend, after which it goes on."""
    values = iter(given)
    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        except UserError:
            raise
        except Exception as error:
            raise Unavailable(f"the program's data ends in {type(error).__name__}: {error}", "python") from error
        yield value


def _found(place: str, where: str, value: Any, options: ColumnOptions) -> Iterator[Found | Rejection]:
    """What an entry or a value of an iterable holds: one item, or several if it is a batch or the path of a folder."""
    try:
        if isinstance(value, Path):
            yield from folders.find(str(value), folders.FolderOptions(), None)
            return
        with parsing("item"):
            for number, entry in enumerate([value] if isinstance(value, ImportedItem) else entries([value])):
                yield found_in_entry(place, f"{where}.{number}" if number else where, entry, options)
    except (FileError, UserError) as error:
        yield Rejection(place, where, "find", "rows", str(error))


def describe(place: str, options: ColumnOptions) -> list[str]:
    return [f"{place}: {ABOUT}"]


SOURCE = Source("python", ABOUT, accepts, absent, describe, ColumnOptions)
