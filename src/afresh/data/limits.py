"""Limits on what comes from outside, whatever its format: bytes that are made of it, items, and seconds.

A format's own limits leave out what its author did not think of. Every loop that input can lengthen asks a `Meter`, and
every call of a parser stands in `parsing`, so that a file that is too much, or that its parser does not survive, is
refused with its reason and the others are read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from afresh.core import UserError
from afresh.data.files import MB, FileError

Item = TypeVar("Item")
CALLS = 64  # of `Meter.add` from one look at the clock to the next
REASON = 300  # characters of what a parser says that are repeated


class LimitExceeded(FileError):
    """A file or a source has more bytes or items, or takes longer, than its limits allow."""


@dataclass(frozen=True)
class Limits:
    """What may be made of one file or one source: bytes, items, and seconds of the processor in this thread.

    Time of the processor does not depend on what else the machine does, so that the same input is refused again.
    """

    bytes: float = math.inf
    items: float = math.inf
    seconds: float = math.inf


class Meter:
    """Counts what is made of a file or a source and raises LimitExceeded once a limit is exceeded."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.bytes, self.items, self.calls = limits, 0, 0, 0
        self.begun = time.thread_time()

    def add(self, *, bytes: int = 0, items: int = 0) -> None:
        """Count these, and look at the clock from time to time. Raises LimitExceeded."""
        self.bytes, self.items, self.calls = self.bytes + bytes, self.items + items, self.calls + 1
        if self.bytes > self.limits.bytes:
            raise LimitExceeded(f"more than {self.limits.bytes / MB:,.0f} MB are made of it: split it")
        if self.items > self.limits.items:
            raise LimitExceeded(f"more than {self.limits.items:,.0f} items: split it")
        if bytes >= MB or self.calls % CALLS == 0:
            self.check_time()

    def check_time(self) -> None:
        """Raises LimitExceeded if the seconds are over."""
        if time.thread_time() - self.begun > self.limits.seconds:
            raise LimitExceeded(f"reading it takes more than {self.limits.seconds:,.0f} seconds: split it")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time within the block does not count, as that of the code that uses what a generator yields."""
        since = time.thread_time()
        yield
        self.begun += time.thread_time() - since

    def each(self, items: Iterable[Item], size: Callable[[Item], int] = lambda item: 0) -> Iterator[Item]:
        """The items, each counted with its bytes before it is given. Raises LimitExceeded."""
        for item in items:
            self.add(bytes=size(item), items=1)
            yield item


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Turns whatever a parser raises within the block, RecursionError and MemoryError included, into a FileError.

    `what` is what was parsed, as "mail". FileError and UserError, which already say what is wrong, pass.
    """
    try:
        yield
    except (FileError, UserError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:REASON] or type(error).__name__
        raise FileError(f"damaged or unusual {what}: {reason}") from error
