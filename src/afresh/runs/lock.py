"""One process at a time trains, replaces or removes a run.

The lock is flock on RUN/.lock, in which the process that holds it is named. The operating system releases it when the
process ends in whatever way, so a file that is left is of no consequence. Within a process it may be taken repeatedly:
the task that creates a run takes it, and training releases it. Where files cannot be locked or the folder cannot be
written, nothing is: what would be written there fails by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.storage.lock import is_file_at, open_locked

FILE = ".lock"


class Lock:
    """A run that this process holds until `release`. `stream` is None where no lock is possible."""

    def __init__(self, file: Path, stream: FileIO | None) -> None:
        self.file, self.stream = file, stream

    def release(self) -> None:
        """Remove the file, if it is still the one that was locked, and let others take the run."""
        if self.stream is None:
            return
        stream, self.stream = self.stream, None
        _held.pop(identity(os.fstat(stream.fileno())), None)
        with contextlib.suppress(OSError):
            if is_file_at(self.file, stream.fileno()):
                self.file.unlink()
        stream.close()


_held: dict[tuple[int, int], Lock] = {}  # by the identity of the file: a folder may be renamed


def identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def hold(folder: Path, doing: str) -> Lock:
    """Take a run, whose folder is made if need be; `doing` completes "is being ...", as trained.

    Raises UserError, naming the process, if another one holds it.
    """
    file = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (mine := own_lock(file)) is not None:
            return mine
        stream = os.fdopen(open_locked(file, os.O_NOFOLLOW), "r+b", buffering=0)
    except BlockingIOError:
        raise in_use(folder, doing) from None
    except OSError:  # it cannot be written, is a link, or is on a file system without locks
        return Lock(file, None)
    status = os.fstat(stream.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:  # not ours to write to
        stream.close()
        return Lock(file, None)
    with contextlib.suppress(OSError):  # the disk may be full
        stream.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "doing": doing, "since": since}
        stream.write(json.dumps(holder).encode())  # not buffered, as closing would try again where it failed
    lock = _held[identity(status)] = Lock(file, stream)
    return lock


def own_lock(file: Path) -> Lock | None:
    """The lock of a file that this process holds already."""
    try:
        return _held.get(identity(file.lstat()))
    except FileNotFoundError:
        return None


def holder_of(folder: Path) -> tuple[Any, ...] | None:
    """The process that holds a run, or was killed while it did: its number, host, what it does, and since when."""
    try:
        with (folder / FILE).open("rb") as stream:
            holder = json.loads(stream.read(1000))
        return tuple(holder[k] for k in ("process", "host", "doing", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def half_made(folder: Path) -> bool:
    """Whether a process began to make a run in a folder, and has not finished: run.json is written last."""
    made = (folder / "run.json").exists() or (folder / "checkpoints").exists()
    return not made and not folder.is_symlink() and holder_of(folder) is not None


def in_use(folder: Path, doing: str) -> UserError:
    """The error that another process holds a run, as far as it has written who it is."""
    process, host, what, since = holder_of(folder) or ("?", socket.gethostname(), "used", "just now")
    where = "" if host == socket.gethostname() else f" on {host}"
    return UserError(
        f"{folder} is being {what} by process {process}{where} since {since}, so it cannot be {doing} now: wait until "
        "that process has ended, or stop it.",
        "run_in_use",
        path=str(folder),
        process=process,
        host=host,
    )


@contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Hold a run during the block. Raises UserError as `hold` does."""
    lock = hold(folder, doing)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def kept(folder: Path, doing: str) -> Iterator[None]:
    """Hold a run from here on, also after the block, unless the block fails. Raises UserError as `hold` does."""
    lock = hold(folder, doing)
    try:
        yield
    except BaseException:
        lock.release()
        raise
