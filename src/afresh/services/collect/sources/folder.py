"""Folders, files and archives of mixed files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from afresh.core import Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, read_bytes, read_zip, suffix_of, walk
from afresh.data.limits import parsing
from afresh.data.split import is_copy, split_of_name
from afresh.data.tar import is_tar, read_tar
from afresh.services.collect.record import About, Found, Rejection, moment
from afresh.services.collect.sources import CONSUMED, Fetched, Options, Source, tables
from afresh.services.collect.sources.beside import Beside


class FolderOptions(Options):
    """`max_file_mb`: of one file. `group`: whether the files of one subfolder stay on one side of the split."""

    max_file_mb: int = Field(default=512, ge=1, le=1 << 20)
    group: bool = False


def accepts(place: str) -> bool:
    return Path(place).exists()


def find(place: str, options: FolderOptions, fetched: Fetched | None) -> Iterator[Found | Rejection]:
    """The rows of tables, then every other file in the order of the names, those of archives in their place. An image
    or a sound that a table names is found there, with its caption, and not again by itself."""
    consumed = fetched.consumed if fetched else 0
    files, refused = walk(Path(place))
    count = len(refused)
    for r in refused:
        yield Rejection(place, r.source, "find", "files", r.reason)
    beside = Beside()
    for file in sorted(files, key=lambda f: (not is_table(f), is_copy(f.name))):  # of equal ones, the first stays
        if file.path.resolve() in beside.taken:
            continue
        if (inside := within(place, file, options, beside)) is not None:
            for one in inside:
                count += 1
                yield one
            continue
        count += 1
        if count <= consumed:
            yield CONSUMED
            continue
        try:
            with parsing("file"):
                content, changed = read_bytes(file, options.max_file_mb), moment(int(file.path.stat().st_mtime))
        except FileError as error:
            yield Rejection(place, file.name, "find", "files", str(error))
            continue
        name = file.name[: -len(file.suffix)] if file.suffix in (".gz", ".zst") else file.name
        group = name.rpartition("/")[0] if options.group else ""
        about = About(time=changed, group=group, split=split_of_name(file.name) or "")
        yield Found(file.name, content, name, about=about)


def is_table(file: DataFile) -> bool:
    return suffix_of(file.name) in tables.SUFFIXES - {".json"}


def within(place: str, file: DataFile, options: FolderOptions, beside: Beside) -> Iterator[Found | Rejection] | None:
    """What is in an archive or a table; None for another file."""
    if file.suffix == ".zip" or is_tar(file.name):
        return members(place, file, beside)
    return rows(place, file, options, beside) if is_table(file) else None


def members(place: str, file: DataFile, beside: Beside) -> Iterator[Found | Rejection]:
    """The files in an archive, and why others or the rest of it are left out."""
    try:
        inside: Iterable[tuple[str, bytes] | Refused]
        inside = chain(*read_zip(file)) if file.suffix == ".zip" else read_tar(file)
        for member in inside:
            if isinstance(member, Refused):
                yield Rejection(place, member.source, "find", "archive", member.reason)
                continue
            name, content = member
            if (file.path.resolve(), name) in beside.taken:
                continue
            yield Found(f"{file.name}: {name}", content, name, about=About(split=split_of_name(name) or ""))
    except (FileError, UserError) as error:
        yield Rejection(place, file.name, "find", "archive", str(error))


def rows(place: str, file: DataFile, options: FolderOptions, beside: Beside) -> Iterator[Found | Rejection]:
    """The rows of a table, whose columns are guessed."""
    try:
        yield from tables.rows_found(place, file, tables.TableOptions(max_file_mb=options.max_file_mb), beside)
    except UserError as error:
        yield Rejection(place, file.name, "find", "table", f"{error} Give the table as a source of its own.")


def describe(place: str, options: Any) -> list[str]:
    files, refused = walk(Path(place))
    lines = [f"{place}: {counted(len(files), 'file')}, {sum(f.size for f in files):,} bytes"]
    return lines + (
        [f"{counted(len(refused), 'file')} left out, as {refused[0].source}: {refused[0].reason}"] if refused else []
    )


ABOUT = "a folder, a file or an archive (.zip, .tar, .tar.gz, .tar.zst)"
SOURCE = Source("folder", ABOUT, accepts, find, describe, FolderOptions)
