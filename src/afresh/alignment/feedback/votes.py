"""Collecting votes: each is on the disk before the next is asked for, and whoever stops goes on where they stopped.

A file of votes is only ever appended to, a whole line at a time, under a lock. A crash can leave at most part of the
last line, which nobody was told is safe; it is cut off before anything is appended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afresh.alignment.feedback.preferences import LONGEST, NEEDED, OPTIONAL, Pair, Vote, parse, scan, vote_of
from afresh.core import ItemKind, UserError
from afresh.core.files import sync_folder

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 16  # bytes read at once, backwards, in search of the last line's begin


def line_of(vote: Vote) -> bytes:
    """A vote as a line of its file. Raises UserError for what reading would leave out."""
    values = {k: getattr(vote, k) for k in NEEDED + OPTIONAL}
    record = {k: v for k, v in values.items() if v is not None}
    if isinstance(found := vote_of(record), str):
        raise UserError(f"This vote cannot be kept: {found}.")
    if vote.a == vote.b:
        raise UserError("This vote cannot be kept: it compares a thing with itself. Show two that differ.")
    line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    if len(line) > LONGEST:
        raise UserError(f"This vote cannot be kept: it has {len(line):,} bytes, and at most {LONGEST:,} are read.")
    return line


def _is_at(path: Path, handle: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file open for appending, made if need be, and nobody else at it. Raises UserError."""
    try:
        while True:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(handle, fcntl.LOCK_EX)
            # An editor that saves puts another file in its place: what is written to the old one would be lost.
            if _is_at(path, handle):
                break
            os.close(handle)
    except OSError as e:
        raise UserError(f"Cannot write votes to {path}: {e.strerror or e}. Choose a file in a folder of yours.") from e
    try:
        yield handle
    finally:
        os.close(handle)  # and with it goes the lock


def _last_line(handle: int, size: int) -> bytes | None:
    """What follows the last line break; None when that is longer than any vote."""
    tail, start = b"", size
    while start > 0:
        step = min(BLOCK, start)
        start -= step
        block = os.pread(handle, step, start)
        cut = block.rfind(b"\n")
        if cut >= 0:
            return block[cut + 1 :] + tail
        tail = block + tail
        if len(tail) > LONGEST:
            return None
    return tail


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON object: part of one never is."""
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _mend(path: Path, handle: int) -> bytes:
    """End the last line, or cut it off and return it where it is part of a vote. Raises UserError for another file.

    What a crash leaves of a line begins as lines do, with a brace, or is zeros where the disk had given room already.
    """
    size = os.fstat(handle).st_size
    head = os.pread(handle, 64, 0).removeprefix(BOM).lstrip()
    tail = _last_line(handle, size)
    zeros = tail is not None and not tail.strip(b"\0")
    begins = not head or head.startswith(b"{") or (zeros and tail is not None and len(tail) == size)
    ends = tail is not None and (zeros or tail.removeprefix(BOM).lstrip(b" \t\r\0").startswith(b"{"))
    if tail is None or not (begins and ends):
        raise UserError(f"{path} is not a file of votes: not every line is a JSON object. Nothing was written to it.")
    if not tail:
        return b""
    if _is_whole(tail):
        parse(tail, 1, f"{path.name}, last line")  # of another file with a JSON object: refused, not appended to
        _write(path, handle, b"\n")
        return b""
    os.ftruncate(handle, size - len(tail))
    os.fsync(handle)
    return tail


def _write(path: Path, handle: int, data: bytes) -> None:
    """All of the data at the file's end and on the disk, or nothing. Raises UserError."""
    before = os.fstat(handle).st_size
    try:
        if os.write(handle, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(handle)
        if before == 0:
            sync_folder(path.parent)  # a new file's name must last too
    except OSError as e:
        os.ftruncate(handle, before)
        raise UserError(
            f"The vote could not be written to {path}, which is as before: {e.strerror or e}. It needs {len(data):,} "
            "bytes. Make room and vote again."
        ) from e


def append(path: Path, vote: Vote) -> None:
    """Write one vote at the file's end; when this returns it is on the disk. Makes the file, not its folder.

    Many processes may append at once. Raises UserError, and leaves the file as it was, when the vote is not one that
    reading would count, when the file is not one of votes, and when the disk is full.
    """
    line = line_of(vote)
    with _locked(path) as handle:
        _mend(path, handle)
        _write(path, handle, line)


def repair(path: Path) -> bytes:
    """Mend what a crash did to the last line of a file, if it exists: what was cut off. `append` does so by itself.

    A whole last line without its line break gets one. Raises UserError when the file is not one of votes.
    """
    if not path.exists():
        return b""
    with _locked(path) as handle:
        return _mend(path, handle)


def unjudged(votes: Iterable[Vote], pairs: Sequence[Pair], rater: str | None) -> list[Pair]:
    """Those of the pairs that a rater has not judged, in their order, each once.

    Paths must be written as `preferences.normal` writes them.
    """
    done = {v.pair for v in votes if v.rater == rater}
    return [p for p in dict.fromkeys(pairs) if p not in done]


def resume(path: Path, pairs: Sequence[Pair], rater: str | None, kind: ItemKind | None = None) -> list[Pair]:
    """The pairs that a rater still has to judge, by a file that may not exist yet. Mends the file. Raises UserError."""
    repair(path)
    return unjudged(scan(path, kind).votes if path.exists() else (), pairs, rater)
