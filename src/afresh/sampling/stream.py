"""One text, piece by piece, while it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread

from afresh.core import UserError
from afresh.sampling.samples import Samples
from afresh.sampling.text_stream import Tell


class _Left(Exception):
    """The reader went away."""


class Stream:
    """Pieces of a text as it is drawn, to be read once; `samples`, with why it ended, is there after the last.

    Drawing begins with the first piece, in a thread of its own, and ends early when the reader leaves the loop.
    """

    def __init__(self, start: Callable[[Tell], Callable[[], Samples]]) -> None:
        """`start` is given where to tell pieces, refuses at once what cannot be, and returns what draws."""
        self.samples: Samples | None = None
        self._pieces: SimpleQueue[str | None] = SimpleQueue()  # None: no more
        self._error: Exception | None = None
        self._begun = self._left = False
        self._draw = start(self._tell)

    def __iter__(self) -> Iterator[str]:
        if self._begun:
            raise UserError("A stream is read once. Ask for another: run.stream(...).")
        self._begun = True
        worker = Thread(target=self._work, daemon=True)
        worker.start()
        try:
            while (piece := self._pieces.get()) is not None:
                yield piece
        finally:
            self._left = True
            worker.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self.samples = self._draw()
        except _Left:
            pass
        except Exception as error:  # for the reader's thread to raise
            self._error = error
        self._pieces.put(None)

    def _tell(self, piece: str) -> None:
        if self._left:
            raise _Left
        if piece:
            self._pieces.put(piece)
