"""The ledger of a catalogue: lines that are only ever added, each with the SHA-256 of the line before it.

A line is one JSON object with `n` (its number from 0), `before` (the hash of the line before, of 64 zeros for the
first), `at` (time in UTC) and `what`. The hash of the last line shows whether any line before it was
changed, removed or put in; without such a copy kept elsewhere, its owner could write the whole file again.

A process that is killed while it writes leaves a last line without its line end. That line was never on the disk for
certain and was not reported, so the next writer cuts it off, and says so in its own line (`mended`).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.safe_json import parse_json
from afresh.data.storage.files import append_lines
from afresh.data.storage.lock import open_locked

FIRST = "0" * 64
MOST_LINE = 1 << 16  # bytes; lines of this program have a few hundred
Entry = Mapping[str, Any]


class Ledger:
    """A ledger and what was read of it, which grows with the file. `follow` is called once with each entry, in order.
    Several processes may append; threads of one share the object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset, self.lines, self.last = 0, 0, FIRST  # bytes and number of whole lines that were read, and the hash
        self.followers: list[Callable[[Entry], None]] = []
        self.guard = threading.RLock()

    def follow(self, follower: Callable[[Entry], None]) -> None:
        """Must be called before anything is read."""
        assert not self.lines
        self.followers.append(follower)

    def read(self) -> bytes:
        """Give the followers what was appended since. Returns a last line that is not whole yet, which is left for
        later. Raises UserError for a line that does not continue the chain."""
        with self.guard:
            if not self.path.exists():
                return b""
            with self.path.open("rb") as stream:
                return self._read(stream.fileno())

    def _read(self, handle: int) -> bytes:
        """Returns what follows the last whole line."""
        if os.fstat(handle).st_size < self.offset:
            raise self._damaged("lines that were there are gone")
        rest = b""
        while chunk := os.pread(handle, 1 << 20, self.offset + len(rest)):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                try:
                    entry = dict(parse_json(line))
                    right = entry["n"] == self.lines and entry["before"] == self.last and isinstance(entry["what"], str)
                except (ValueError, KeyError, TypeError):
                    raise self._damaged("it is not an entry") from None
                if not right:
                    raise self._damaged("it does not continue the chain")
                for follower in self.followers:
                    follower(entry)
                self.offset, self.lines = self.offset + len(line) + 1, self.lines + 1
                self.last = sha256(line).hexdigest()
            if len(rest) > MOST_LINE:
                raise self._damaged(f"it has more than {MOST_LINE:,} bytes")
        return rest

    def _damaged(self, why: str) -> UserError:
        line = self.lines + 1
        return UserError(
            f"{self.path} was changed: line {line:,}: {why}. Restore a copy of it, and repeat the notices of payment "
            "that came since.",
            "ledger",
            line=line,
        )

    @contextmanager
    def appending(self) -> Iterator[Callable[..., Entry]]:
        """A function that appends an entry of these fields, which is on the disk when it returns. Everything that was
        appended before has been read, and no other process appends meanwhile."""
        with self.guard:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(open_locked(self.path, wait=True)) as stream:
                handle = stream.fileno()
                torn = self._read(handle)
                if torn:
                    os.ftruncate(handle, self.offset)

                def append(what: str, **fields: Any) -> Entry:
                    nonlocal torn
                    now = datetime.now(UTC).isoformat(timespec="seconds")
                    head = {"n": self.lines, "before": self.last, "at": now, "what": what}
                    mended = {"mended": {"bytes": len(torn), "sha256": sha256(torn).hexdigest()}} if torn else {}
                    line = (
                        json.dumps({**head, **fields, **mended}, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                    )
                    assert len(line) <= MOST_LINE
                    append_lines(self.path, line)
                    torn = b""
                    self._read(handle)
                    return dict(json.loads(line))

                yield append

    def append(self, what: str, **fields: Any) -> Entry:
        """Append one entry."""
        with self.appending() as append:
            return append(what, **fields)


def check_ledger(path: Path) -> tuple[int, str, int]:
    """Read a ledger from its beginning: the number of lines, the hash of the last, and the bytes of a last line that a
    process did not finish. Raises UserError for a line that does not continue the chain."""
    ledger = Ledger(path)
    torn = ledger.read()
    return ledger.lines, ledger.last, len(torn)
