"""Files that are either the old one or the new one, whole: written aside, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from afresh.core.errors import UserError

CANNOT_WRITE = "cannot_write"  # the code of the error of a full disk, or one that is not writable


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
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def replace_file(path: Path, data: bytes) -> None:
    """Put a whole file in place of another, or leave the old one: never half of it. Makes its folder if need be.

    Raises UserError, naming the bytes needed, when the disk is full or not writable.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(aside, data)
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise UserError(
            f"Could not write {path}: {e.strerror or e}. It needs {len(data):,} bytes; "
            f"{free_bytes(path.parent):,} are free. Make room or choose another output folder, then `resume`.",
            CANNOT_WRITE,
        ) from e


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content takes the place of a file when the block has ended; if it fails, the old one stays. Makes
    its folder if need be. Raises UserError when the disk is full or not writable."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError as e:
        raise UserError(
            f"Could not write {path}: {e.strerror or e}; {free_bytes(path.parent):,} bytes are free. Make room or "
            "choose another place."
        ) from e
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def write_json(path: Path, value: Any) -> None:
    replace_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def free_bytes(path: Path) -> int:
    """Free bytes where `path` is, or would be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def bytes_on_disk(folder: Path) -> int:
    """The bytes of the files in a folder; of a link, those of the link itself."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_symlink() or p.is_file())
