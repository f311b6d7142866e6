"""Turns of the requests that compute with a run outside of its lane, such as edits.

One of them computes at a time, so that a crowd takes no more memory and processors than one does. They come in the
order in which they asked, and one that takes long lets the others compute between two of its steps, so that none waits
for another to end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from afresh.core.solver_progress import Step, following
from afresh.faces.http.batching import Cancelled

PATIENCE = 0.2  # seconds after which a request that waits for its turn looks whether anybody still waits for it
SLICE = 1.0  # seconds after which a request lets others compute that wait


class Turns:
    """The requests that compute or wait, the one that computes first."""

    def __init__(self) -> None:
        self.queue: deque[threading.Event] = deque()
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, gone: threading.Event, shared: bool = True) -> Iterator[None]:
        """A turn, which is given to others between the steps inside the block and comes back, unless it is not
        `shared`. `gone` is set when the result is no longer wanted. Raises Cancelled then."""
        thread, begun = threading.get_ident(), 0.0

        def share(step: Step) -> None:
            nonlocal begun
            # Steps of a lane, which this request may wait for, are taken in another thread.
            if threading.get_ident() == thread and len(self.queue) > 1 and time.monotonic() - begun >= SLICE:
                self._leave(gone)
                self._wait(gone)
                begun = time.monotonic()

        self._wait(gone)
        begun = time.monotonic()
        try:
            with following(share) if shared else nullcontext():
                yield
        finally:
            self._leave(gone)

    def _wait(self, gone: threading.Event) -> None:
        """Wait for all that asked before."""
        with self.changed:
            self.queue.append(gone)
            while self.queue[0] is not gone:
                self.changed.wait(PATIENCE)
                if gone.is_set():
                    self.queue.remove(gone)
                    raise Cancelled

    def _leave(self, gone: threading.Event) -> None:
        with self.changed:
            if gone in self.queue:  # not if it was cancelled while it waited
                self.queue.remove(gone)
            self.changed.notify_all()
