"""Files that are either the old one or the new one, whole: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from afresh.core.errors import CANNOT_WRITE, UserError

MANY = 1_000  # files and folders, from which on a tree is synced with everything else on the machine


def write_file(path: Path, data: bytes) -> None:
    """Write and sync one file."""
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync_folder(path: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make every file and folder in a folder durable, so that a rename cannot reach the disk before its content."""
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    if len(paths) > MANY and sys.platform == "linux":  # elsewhere, sync may return before everything is on the disk
        os.sync()
        return
    for path in paths:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def path_aside(path: Path) -> Path:
    """Where this process writes what is to become `path`. Files of such names are nothing that a reader counts."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of a file when the block has ended; if it fails, the old one stays. Makes
    its folder if need be. mode: who may do what with a new file. Raises OSError when the disk is full or not
    writable."""
    aside = path_aside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def replace_file(path: Path, data: bytes, advice: str = "Make room or choose another output folder") -> None:
    """Put a whole file in place of another, or leave the old one: never half of it. Makes its folder if need be.

    Raises UserError, naming the bytes needed and the `advice`, when the disk is full or not writable.
    """
    try:
        with new_file(path) as stream:
            stream.write(data)
    except OSError as e:
        raise UserError(
            f"Could not write {path}: {e.strerror or e}. It needs {len(data):,} bytes; "
            f"{free_bytes(path.parent):,} are free. {advice}, then `resume`.",
            CANNOT_WRITE,
        ) from e


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    replace_file(path, json_bytes(value))


def append_lines(path: Path, lines: bytes, sync: bool = True) -> None:
    """Append whole lines to a file, which is made if need be, and wait until they are on the disk, unless `sync` is
    false. A last line that a crash cut short is ended first.

    Raises OSError, with the file as it was, when the disk is full or not writable.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(lines if not size or ends_whole(path) else b"\n" + lines)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if sync and not size:
            sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise


def ends_whole(path: Path) -> bool:
    """Whether the last line of a file, which is not empty, is complete."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@contextlib.contextmanager
def readable(what: Path | str, code: str = "unreadable") -> Iterator[None]:
    """Read files in the block. Raises UserError, which names `what`, in place of an OSError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror or error}.", code) from error


def start_of(path: Path, count: int) -> bytes:
    """The first bytes of a file, at most so many. Raises OSError."""
    with path.open("rb") as stream:
        return stream.read(count)


def free_bytes(path: Path) -> int:
    """Free bytes where `path` is, or would be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def bytes_on_disk(folder: Path) -> int:
    """The bytes of the files in a folder; of a link, those of the link itself."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_symlink() or p.is_file())
