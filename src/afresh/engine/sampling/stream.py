"""Streaming a text while it is sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread

from afresh.core import UserError
from afresh.engine.sampling.samples import Samples
from afresh.engine.sampling.text_stream import TextCallback, TextRow


class _Left(Exception):
    """Raised in the sampling thread after the caller has left the loop."""


class Stream:
    """An iterator over the pieces of a text while it is sampled. It can be read once.

    After the last piece, `samples` holds the samples, with the reason why the text ended. Sampling runs in its own
    thread. It begins when the first piece is requested, and stops early if the caller leaves the loop.
    """

    def __init__(self, start: Callable[[TextCallback], Callable[[], Samples]]) -> None:
        """`start` takes a callback for pieces and returns the function that samples; it raises errors immediately."""
        self.samples: Samples | None = None
        self._pieces: SimpleQueue[str | None] = SimpleQueue()  # None: the text has ended
        self._error: Exception | None = None
        self._started = self._left = False
        self._draw = start(self._put)

    def __iter__(self) -> Iterator[str]:
        if self._started:
            raise UserError("A stream can be read only once. Create another with `model.stream()`.")
        self._started = True
        worker = Thread(target=copy_context().run, args=(self._work,), daemon=True)  # events go to the same listener
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
        except Exception as error:  # raised again in the thread of the caller
            self._error = error
        self._pieces.put(None)

    def _put(self, index: int, piece: str, row: TextRow) -> None:
        if self._left:
            raise _Left
        if piece:
            self._pieces.put(piece)
