"""A disk that loses what was not synced, for tests of the order in which files are written, synced and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Disk:
    """What a loss of power would leave. A file is durable up to its size when it was synced; a folder, with the names
    that it had then. `renamed`: the names that a file or folder was renamed to, in order."""

    def __init__(self) -> None:
        self.files: dict[int, int] = {}  # by the number of the file: bytes
        self.folders: dict[int, frozenset[str]] = {}
        self.renamed: list[str] = []

    def sync(self, handle: int) -> None:
        status = os.fstat(handle)
        try:
            self.folders[status.st_ino] = frozenset(os.listdir(handle))
        except NotADirectoryError:
            self.files[status.st_ino] = status.st_size

    def lost(self, path: Path) -> list[str]:
        """The files and folders in `path`, or it itself, of which a loss of power would take something."""
        found = []
        for place in [path, *path.rglob("*")] if path.is_dir() else [path]:
            status = place.stat()
            if place.is_dir():
                durable = self.folders.get(status.st_ino, frozenset()) >= {inner.name for inner in place.iterdir()}
            else:
                durable = self.files.get(status.st_ino, -1) == status.st_size
            if not durable:
                found.append(place.name)
        return found

    def rename(self, source: Any, target: Any) -> None:
        """What is renamed must be on the disk, as a whole, unless it was there before."""
        assert not self.lost(Path(source)), f"{source} is renamed before {self.lost(Path(source))} was synced"
        self.renamed.append(Path(target).name)


@contextmanager
def disk() -> Iterator[Disk]:
    """Follow what is synced and renamed within the block. At its end every name that was given must be durable."""
    found, targets = Disk(), list[Path]()
    replace, rename = os.replace, Path.rename

    def replaced(source: Any, target: Any) -> None:
        found.rename(source, target)
        replace(source, target)
        targets.append(Path(target))

    def renamed(self: Path, target: Any) -> Path:
        found.rename(self, target)
        targets.append(Path(target))
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", found.sync)
        patch.setattr(os, "replace", replaced)
        patch.setattr(Path, "rename", renamed)
        yield found
    for target in targets:
        if target.exists():
            names = found.folders.get(target.parent.stat().st_ino, frozenset())
            assert target.name in names, f"the folder of {target} was not synced after the rename"
