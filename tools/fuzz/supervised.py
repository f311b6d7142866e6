"""A process of its own tries mutations, and another takes its place when it dies or says nothing for too long."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

BEGIN = 600.0  # seconds in which a process imports what it needs
TOGETHER = 250  # mutations of one process, so that what leaks, or stays behind, does not add up


@dataclass(frozen=True)
class Begun:
    """What is about to be done: the `number` of the mutation, from which all of it follows, and what was changed."""

    number: int
    run: str
    verb: str
    what: str = ""


@dataclass(frozen=True)
class Tried:
    """What became of it. `explained`: it worked or was refused with a reason, which `says` holds; else that holds how
    it failed."""

    begun: Begun
    explained: bool
    says: str


Work = Callable[[Iterable[int]], Iterator[Begun | Tried]]


def supervised(work: Work, numbers: range, wait: float, together: int = TOGETHER) -> Iterator[Tried]:
    """What became of each verb of each mutation. `work` is called in other processes.
    After a verb in which its process dies, or is ended because it was silent for `wait` seconds, the next mutation
    follows.

    Raises RuntimeError if a process ends before it begins with anything.
    """
    at = numbers.start
    while at < numbers.stop:
        part = range(at, min(at + together, numbers.stop))
        last: Begun | Tried | None = None
        for message in _messages(work, part, wait):
            if isinstance(message, str):
                if last is None:
                    raise RuntimeError(message)
                begun = last.begun if isinstance(last, Tried) else last
                at = begun.number + 1
                yield Tried(begun, False, message)
                break
            last = message
            if isinstance(message, Tried):
                yield message
        else:
            at = part.stop


def _messages(work: Work, numbers: range, wait: float) -> Iterator[Begun | Tried | str]:
    """What a process sends; at last, unless it ends well, how it ended."""
    context = get_context("fork")  # of a process that has imported nothing with threads of its own
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(work, numbers, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        patience = BEGIN
        while ours.poll(patience):
            yield ours.recv()
            patience = wait
        yield f"nothing happened for {patience:g} seconds"
    except EOFError:
        process.join()
        if code := process.exitcode:
            yield f"the process ended: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
    finally:
        process.kill()
        process.join()
        ours.close()


def _send(work: Work, numbers: range, to: Connection) -> None:
    for message in work(numbers):
        to.send(message)
