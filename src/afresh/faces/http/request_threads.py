"""The work of requests: in threads of their own, at most so many at once, ended when the client goes away."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

import torch
from fastapi import Request

from afresh.core import events
from afresh.core.cost import at_most
from afresh.core.events import Event
from afresh.core.solver_progress import Step, following
from afresh.faces.http.batching import PROCESSORS, Cancelled, cancelled
from afresh.faces.http.counts import Metrics
from afresh.faces.http.errors import RefusedRequest, refused, without_paths
from afresh.faces.http.loaded_runs import Library, Served, check_held
from afresh.faces.http.turn import Turns

T = TypeVar("T")
EVERY = 0.05  # seconds between the events of a stream: what comes meanwhile is one event, as nobody reads faster
AT_FIRST = 2  # times without a pause: that a run has begun, and its first piece
AT_ONCE = 128  # pieces that are answered in one go, so that other requests are not kept waiting
RETRY = 1  # seconds after which a client that was refused tries again


class Desk:
    """Where requests are admitted: at most `most` at once, the others are refused with 429."""

    def __init__(self, library: Library, most: int, evaluations: int) -> None:
        """`evaluations`: of a network, that one request may take."""
        self.library, self.most, self.evaluations = library, most, evaluations
        # One processor each: every thread that computes with several has a team of its own, and as soon as all teams
        # have more threads than there are processors, those of a lane sleep between two steps and wake late.
        self.threads = ThreadPoolExecutor(
            most, thread_name_prefix="request", initializer=torch.set_num_threads, initargs=(1,)
        )
        self.busy = 0
        self.metrics = Metrics()
        self.turns = Turns()  # of requests that need no run

    def admit(self) -> None:
        """Raises Refused if there are too many requests."""
        if self.busy >= self.most:
            message = f"The server is busy with {self.busy} requests, which is as many as it takes. Try again later."
            raise RefusedRequest(429, message, "rate_limit_exceeded", retry=RETRY)

    def start(self, work: Callable[[], T]) -> tuple[asyncio.Future[T], threading.Event]:
        """Begin `work`; returns its future, and the event that cancels it. Raises Refused if busy."""
        self.admit()
        self.busy += 1
        gone = threading.Event()

        def stop(step: Step) -> None:
            if gone.is_set():
                raise Cancelled

        def working() -> T:
            cancelled.set(gone)
            with at_most(self.evaluations), following(stop):
                return work()

        future = asyncio.get_running_loop().run_in_executor(self.threads, copy_context().run, working)
        future.add_done_callback(self._finished)
        return future, gone

    def _finished(self, future: asyncio.Future[Any]) -> None:
        self.busy -= 1
        if not future.cancelled():
            future.exception()  # it was or will be raised where the result is awaited, if anybody is left to await it

    def with_run(self, model: str, work: Callable[[Served], T]) -> T:
        """The result of `work` with a run, which is held meanwhile."""
        served = self.library.acquire(model)
        counted = self.metrics.working((served.base or served).name)
        try:
            with counted, events.listening(unheard), following(lambda step: check_held(served)):
                made = work(served)
            check_held(served)
            return made
        finally:
            self.library.release(served)

    def cancel(self, gone: threading.Event) -> None:
        """The work of this event is no longer wanted."""
        gone.set()
        for served in list(self.library.held.values()):
            served.lane.wake()

    async def run(self, request: Request, model: str, work: Callable[[Served], T]) -> T:
        """The result of `work` with a run, which is cancelled when the client goes away."""
        return await self._result(request, lambda: self.with_run(model, work))

    async def run_in_turn(self, request: Request, work: Callable[[], T]) -> T:
        """The same of work that needs no run, one request at a time: it may take as much memory as one does."""

        def working() -> T:
            with self.turns.taken(cancelled.get() or threading.Event(), shared=False):
                return work()

        return await self._result(request, working)

    async def _result(self, request: Request, work: Callable[[], T]) -> T:
        future, gone = self.start(work)
        leaving = asyncio.ensure_future(left(request))
        either: set[asyncio.Future[Any]] = {future, leaving}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise RefusedRequest(499, "The client went away.")
            return await future
        finally:
            leaving.cancel()
            if not future.done():
                self.cancel(gone)

    async def stream(self, model: str, work: Callable[[Served, Callable[[Any], None]], T]) -> AsyncIterator[list[Any]]:
        """What `work` passes to its second argument, as it comes: lists of what came meanwhile; and at last its result.

        Raises what `work` raises. The work is cancelled when the caller leaves the loop.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        items: deque[Any] = deque()
        sent, times = 0.0, 0  # when items were last yielded, and how often

        def put(item: Any) -> None:
            items.append(item)
            if len(items) == 1:  # otherwise the loop has been woken already
                loop.call_soon_threadsafe(arrived.set)

        future, gone = self.start(lambda: self.with_run(model, lambda served: work(served, put)))
        future.add_done_callback(lambda _: arrived.set())
        try:
            while not future.done() or items:
                if not items:
                    await arrived.wait()
                    arrived.clear()
                pause = sent + EVERY - loop.time()
                if times >= AT_FIRST and pause > 0 and not future.done():
                    await asyncio.wait({future}, timeout=pause)
                sent, times = loop.time(), times + 1
                if came := [items.popleft() for _ in range(min(len(items), AT_ONCE))]:
                    yield came
            yield [await future]
        finally:
            if not future.done():
                self.cancel(gone)

    def close(self) -> None:
        self.library.close()
        self.threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def alone(served: Served) -> Iterator[None]:
    """The turn of a request that computes with a run outside of its lane (afresh.faces.http.turn). Raises Cancelled if
    the result is no longer wanted."""
    with served.turns.taken(cancelled.get() or threading.Event()):
        torch.set_num_threads(PROCESSORS)
        try:
            yield
        finally:
            torch.set_num_threads(1)


@contextmanager
def noted() -> Iterator[list[str]]:
    """The notes and warnings that are given inside the block."""
    notes: list[str] = []

    def listen(event: Event) -> None:
        if event.kind in ("note", "warning"):
            notes.append(without_paths(event.text))

    with events.listening(listen):
        yield notes


def unheard(event: Event) -> None:
    """Notes and warnings of a request are not those of the server."""


async def left(request: Request) -> None:
    """Returns when the client has gone away. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def once_begun(
    pieces: AsyncIterator[str], failed: Callable[[RefusedRequest], Sequence[str]]
) -> AsyncIterator[str]:
    """An answer whose first piece has arrived. Raises the error of the first one, so that it is answered with a
    status; an error of a later one is a piece itself."""
    first = await anext(pieces)

    async def whole() -> AsyncIterator[str]:
        yield first
        try:
            async for piece in pieces:
                yield piece
        except Exception as error:
            yield "".join(failed(refused(error)))

    return whole()
