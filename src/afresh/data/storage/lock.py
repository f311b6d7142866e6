"""Files that one process at a time has, by flock: the operating system releases them when it ends in whatever way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def open_locked(path: Path, flags: int = 0, mode: int = 0o644, wait: bool = False) -> int:
    """The descriptor of a file that is open for reading and writing and locked until it is closed, also by a child that
    inherits it. The file is made if need be; one that another process has replaced or removed is opened again.

    Raises BlockingIOError if another process holds it, unless `wait`, and OSError if it cannot be opened or locked.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | flags, mode)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if is_file_at(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_file_at(path: Path, handle: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process holds a file."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
