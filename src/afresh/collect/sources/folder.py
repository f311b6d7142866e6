"""Folders, files and .zip archives of mixed files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from afresh.collect.record import About, Found, Rejection
from afresh.collect.sources import CONSUMED, Fetched, Options, Source
from afresh.core.counted import counted
from afresh.data.files import DataFile, FileError, read_bytes, read_zip, walk
from afresh.data.split import split_of_name


class FolderOptions(Options):
    """`max_file_mb`: of one file. `group`: whether the files of one subfolder stay on one side of the split."""

    max_file_mb: int = Field(default=512, ge=1, le=1 << 20)
    group: bool = False


def accepts(place: str) -> bool:
    return Path(place).exists()


def find(place: str, options: FolderOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """Every file in the order of the names, those of archives in their place."""
    files, refused = walk(Path(place))
    count = len(refused)
    for r in refused:
        yield Rejection(place, r.source, "find", "files", r.reason)
    for file in files:
        if file.suffix == ".zip":
            for one in members(place, file):
                count += 1
                yield one
            continue
        count += 1
        if count <= fetched.consumed:
            yield CONSUMED
            continue
        try:
            content = read_bytes(file, options.max_file_mb)
        except FileError as error:
            yield Rejection(place, file.name, "find", "files", str(error))
            continue
        name = file.name.removesuffix(".gz") if file.suffix == ".gz" else file.name
        changed = datetime.fromtimestamp(int(file.path.stat().st_mtime), UTC).isoformat()
        group = name.rpartition("/")[0] if options.group else ""
        about = About(time=changed, group=group, split=split_of_name(file.name) or "")
        yield Found(file.name, content, name, about=about)


def members(place: str, file: DataFile) -> Iterator[Found | Rejection]:
    """The files in an archive."""
    inside, refused = read_zip(file.path)
    for name, content in inside:
        yield Found(f"{file.name}: {name}", content, name, about=About(split=split_of_name(name) or ""))
    for r in refused:
        yield Rejection(place, r.source, "find", "archive", r.reason)


def describe(place: str, options: Any) -> list[str]:
    files, refused = walk(Path(place))
    lines = [f"{place}: {counted(len(files), 'file')}, {sum(f.size for f in files):,} bytes"]
    return lines + (
        [f"{counted(len(refused), 'file')} left out, as {refused[0].source}: {refused[0].reason}"] if refused else []
    )


SOURCE = Source("folder", "a folder, a file or a .zip archive", accepts, find, describe, FolderOptions)
