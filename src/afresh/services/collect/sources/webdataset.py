"""WebDataset: .tar archives in which files of one name are one example (0001.jpg, 0001.txt, 0001.json)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, walk
from afresh.data.limits import parsing
from afresh.data.split import split_of_name
from afresh.data.webdataset import entry, examples
from afresh.services.collect.columns import ColumnOptions, found_in_entry
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Source

LOOKED_AT = 50  # examples that say whether an archive is one of examples
DAMAGED = (FileError, OSError)


def files_of(path: Path) -> list[DataFile]:
    """The .tar archives at a path; none if a folder has other files beside them."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())) or (path.is_file() and path.suffix != ".tar"):
        return []
    files = walk(path)[0]
    return files if files and all(f.suffix == ".tar" for f in files) else []


def accepts(place: str) -> bool:
    """Whether most examples of the first archive have more than one member; others hold files of their own."""
    files = files_of(Path(place))
    if not files:
        return False
    first: list[dict[str, bytes]] = []
    with suppress(*DAMAGED):  # what comes before the damage is looked at
        first.extend(islice(examples(files[0], False), LOOKED_AT))
    return 2 * sum(len(example) > 1 for example in first) > len(first)


def find(place: str, options: ColumnOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every example in the order of the archives."""
    for file in files_of(Path(place)):
        split = split_of_name(file.name)
        try:
            for number, example in enumerate(examples(file, True), 1):
                where = f"{file.name}, example {number}"
                try:
                    with parsing("example"):
                        yield found_in_entry(place, where, entry(example, None, split), options)
                except (FileError, UserError) as error:
                    yield Rejection(place, where, "find", "rows", str(error))
        except DAMAGED as error:
            yield Rejection(place, file.name, "find", "archive", str(error))


def describe(place: str, options: ColumnOptions) -> list[str]:
    files = files_of(Path(place))
    return [f"{place}: {counted(len(files), 'archive')} of examples, {sum(f.size for f in files):,} bytes"]


SOURCE = Source("webdataset", "a WebDataset: .tar archives of examples", accepts, find, describe, ColumnOptions)
