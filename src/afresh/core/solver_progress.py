"""The steps of a solver as they are taken: for showing how far it is, for showing what it predicts, and for ending it.

A solver calls `step`, and does not know who follows. Who follows changes nothing about the result; an error that is
raised by a follower ends the solver. Whatever may take long calls `step`, or goes through `blocks`, so that it can be
ended once its result is no longer wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from afresh.core import events

SILENT_SECONDS = 2.0  # within which nobody asks how far it is
Block = TypeVar("Block")


@dataclass(frozen=True)
class Step:
    """A step that was taken: `done` of `total`. `estimate()` is the data (B, *shape) that is predicted there, in the
    space of the family, of the samples from number `first` on; None where nothing is predicted on the way."""

    done: int
    total: int
    estimate: Callable[[], Tensor] | None = None
    first: int = 0


Follower = Callable[[Step], None]
_follower: ContextVar[Follower | None] = ContextVar("follower", default=None)
_part: ContextVar[tuple[int, int] | None] = ContextVar("part", default=None)


@contextmanager
def following(follower: Follower) -> Iterator[None]:
    """Steps that are taken inside the block, in this context, are passed to `follower`, after any that follows
    already."""
    outer = _follower.get()

    def both(step: Step) -> None:
        if outer is not None:
            outer(step)
        follower(step)

    token = _follower.set(both)
    try:
        yield
    finally:
        _follower.reset(token)


@contextmanager
def reporting(task: str) -> Iterator[None]:
    """Events of progress tell how far the steps of a solver inside the block are, unless they take only a moment. Those
    on which nothing is predicted, such as tokens that are shown as they come, are not told."""
    begun = time.monotonic()

    def tell(step: Step) -> None:
        if step.estimate is not None and time.monotonic() - begun >= SILENT_SECONDS:
            events.advance(f"{task}: step {step.done:,} of {step.total:,}", task, step.done, step.total)

    with following(tell):
        yield


def blocks(parts: Sequence[Block], task: str) -> Iterator[Block]:
    """The parts, one after the other, each a step for the follower. Events of progress tell how far they are and
    when they will be done, unless all of them take only a moment."""
    begun = shown = time.monotonic()
    follow = _follower.get()
    for done, part in enumerate(parts):
        now = time.monotonic()
        if done and now - shown >= SILENT_SECONDS:
            shown = now
            events.advance(f"{task}: {done / len(parts):.0%}", task, done, len(parts), now - begun)
        if follow is not None:
            follow(Step(done, len(parts)))
        yield part


@contextmanager
def part_of(before: int, total: int) -> Iterator[None]:
    """The steps inside the block are a part of `total`, `before` of which were taken earlier."""
    token = _part.set((before, total))
    try:
        yield
    finally:
        _part.reset(token)


def follower() -> Follower | None:
    """Who follows in this context, if anybody does."""
    return _follower.get()


def step(done: int, total: int, estimate: Callable[[], Tensor] | None = None) -> None:
    """Tell the follower that `done` of `total` steps were taken."""
    follow = _follower.get()
    if follow is not None:
        before, whole = _part.get() or (0, total)
        follow(Step(before + done, whole, estimate))
