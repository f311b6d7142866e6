"""Writes votes to a file. Each vote is on disk before the next pair is shown, so that voting can be resumed.

Lines are only appended to a file of votes, each as a whole, under a lock. A crash can at most leave a part of the last
line, a vote that was not confirmed yet; it is removed before anything is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afresh.core import UserError
from afresh.data.storage.files import append_lines, replace_file
from afresh.data.storage.lock import open_locked
from afresh.engine.alignment.feedback.preferences import (
    MAX_LINE_BYTES,
    OPTIONAL,
    REQUIRED,
    WEIGHT,
    Pair,
    Vote,
    parse,
    vote_of,
)

BOM = b"\xef\xbb\xbf"
BLOCK_BYTES = 1 << 16  # read at once when the beginning of the last line is searched


def line_of(vote: Vote) -> bytes:
    """A vote as a line of its file. Raises UserError for a vote that reading would leave out."""
    values = {k: getattr(vote, k) for k in REQUIRED + OPTIONAL}
    record = {k: v for k, v in values.items() if v is not None} | ({} if vote.weight == 1 else {WEIGHT: vote.weight})
    if isinstance(reason := vote_of(record), str):
        raise UserError(f"This vote cannot be saved: {reason}.")
    if vote.a == vote.b:
        raise UserError("This vote cannot be saved: it compares an item with itself. Show two different items.")
    line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise UserError(
            f"This vote cannot be saved: it has {len(line):,} bytes, and the limit is {MAX_LINE_BYTES:,}. Shorten it."
        )
    return line


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file, created if necessary, opened for appending and locked. Raises UserError."""
    try:
        # Editors replace a file when they save it; votes that are written to the old file would be lost.
        handle = open_locked(path, os.O_APPEND, wait=True)
    except OSError as e:
        raise UserError(f"Cannot write votes to {path}: {e.strerror or e}. Choose another file.") from e
    try:
        yield handle
    finally:
        os.close(handle)  # this also releases the lock


def _last_line(handle: int, size: int) -> bytes | None:
    """The bytes after the last line break; None if they are longer than any vote."""
    tail, start = b"", size
    while start > 0:
        step = min(BLOCK_BYTES, start)
        start -= step
        block = os.pread(handle, step, start)
        cut = block.rfind(b"\n")
        if cut >= 0:
            return block[cut + 1 :] + tail
        tail = block + tail
        if len(tail) > MAX_LINE_BYTES:
            return None
    return tail


def _is_whole(line: bytes) -> bool:
    """Whether a line is a JSON object, which no part of one is."""
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _repair(path: Path, handle: int) -> bytes:
    """Complete the last line with a line break, or remove and return it if it is a part of a vote.

    A crash leaves either the beginning of a line, which starts with a brace, or zeros, if the file system had already
    allocated space. Raises UserError for other files.
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
        parse(tail, 1, f"{path.name}, last line")  # raises UserError if the object is not a vote
        _write(path, b"")  # which ends the line
        return b""
    os.ftruncate(handle, size - len(tail))
    os.fsync(handle)
    return tail


def _write(path: Path, data: bytes) -> None:
    """Append the data and wait until it is on disk, or leave the file unchanged and raise UserError."""
    try:
        append_lines(path, data)
    except OSError as e:
        raise UserError(
            f"The vote could not be written to {path}, which is unchanged: {e.strerror or e}. It needs {len(data):,} "
            "bytes. Free some space and vote again."
        ) from e


def append(path: Path, vote: Vote) -> None:
    """Append a vote to a file, which is created if necessary. When this returns, the vote is on disk.

    Several processes may append at the same time. Raises UserError, and leaves the file unchanged, if the vote is not
    valid, if the file is not a file of votes, or if the disk is full.
    """
    line = line_of(vote)
    with _locked(path) as handle:
        _repair(path, handle)
        _write(path, line)


def withdraw(path: Path, vote: Vote) -> None:
    """Remove the last line of a file that holds this vote, even if other votes were appended since.

    Raises UserError, and leaves the file unchanged, if there is no such line or the file cannot be written.
    """
    line = line_of(vote)
    with _locked(path) as handle:
        _repair(path, handle)
        data = b"\n" + path.read_bytes()
        start = data.rfind(b"\n" + line)
        if start < 0:
            raise UserError(f"The vote is no longer in {path}, so it cannot be withdrawn. Nothing was changed.")
        replace_file(path, data[1 : start + 1] + data[start + 1 + len(line) :])


def repair(path: Path) -> bytes:
    """Remove and return the incomplete last line that a crash may have left in a file, if the file exists.

    A complete last line without a line break gets one. `append` calls this itself. Raises UserError if the file is not
    a file of votes.
    """
    if not path.exists():
        return b""
    with _locked(path) as handle:
        return _repair(path, handle)


def unjudged(votes: Iterable[Vote], pairs: Sequence[Pair], rater: str | None) -> list[Pair]:
    """The pairs that a rater has not judged, in their order, without repetitions.

    Paths must be in the form of `preferences.normal_path`.
    """
    done = {v.pair for v in votes if v.rater == rater}
    return [p for p in dict.fromkeys(pairs) if p not in done]
