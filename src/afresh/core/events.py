"""The one stream of events through which every task reports: progress, notes, warnings and errors.

A task calls `note`, `warning` or `progress` and does not know who listens. A command line, a notebook, a server or a
log file listens:

    with listening(JsonLines(file)):
        afresh.train("photos/")

The listener belongs to the context (contextvars), so two tasks in two threads may report to two listeners. Where
nothing listens, events are written to standard error as lines of text.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from afresh.core.library_words import in_plain_words
from afresh.core.safe_text import visible, visible_line

Kind = Literal["progress", "note", "warning", "error"]


@dataclass(frozen=True)
class Event:
    """One thing that happened. `code` names it for programs (`plan`, `data`, `training`, ...), `text` for people, and
    `fields` holds its values as plain JSON. Control characters in `text` are made visible, except its line ends if the
    kind is "error": those are of the error itself. Words of libraries become plain ones. A `detail` is a note for
    people who ask for details.
    """

    kind: Kind
    code: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    detail: bool = False

    def __post_init__(self) -> None:
        text = self.text if self.kind == "progress" else in_plain_words(self.text)
        object.__setattr__(self, "text", (visible if self.kind == "error" else visible_line)(text))

    def json(self) -> dict[str, Any]:
        """{event, code, text, **fields}."""
        return {"event": self.kind, "code": self.code, "text": self.text, **self.fields}


Listener = Callable[[Event], None]


class PlainLines:
    """A listener that writes lines of text: notes and warnings as they come, progress at most every `every` seconds,
    details only if it is `verbose`."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0, verbose: bool = False) -> None:
        """`stream` is standard error by default."""
        self.stream, self.every, self.verbose = stream, every, verbose
        self.last: float | None = None  # when progress was last shown, or begun

    def __call__(self, event: Event) -> None:
        if event.detail and not self.verbose:
            return
        if event.kind == "progress":
            now = time.monotonic()
            self.last = now if self.last is None else self.last
            if now - self.last < self.every and not event.fields.get("ended"):
                return
            self.last = None if event.fields.get("ended") else now
        prefix = f"{event.kind}: " if event.kind in ("warning", "error") else ""
        print(f"{prefix}{event.text}", file=self.stream or sys.stderr, flush=True)


def ignore(event: Event) -> None:
    """A listener that shows nothing."""


def json_line(value: Any) -> str:
    """The value as one line of ASCII. JSON has no infinities: numbers that are not finite become null."""
    return json.dumps(_finite(value), default=str, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


class JsonLines:
    """A listener that writes every event as one line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        self.stream.write(json_line(event.json()))
        self.stream.flush()


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_default = PlainLines()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Events raised inside the block, in this context, go to `listener` alone."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """The listener of this context, if one was set."""
    return _listener.get()


def emit(event: Event) -> None:
    """Hand an event to the listener of this context, or else write it to standard error."""
    (_listener.get() or _default)(event)


def note(text: str, code: str = "note", **fields: Any) -> None:
    """Something a person may want to know; nothing is wrong."""
    emit(Event("note", code, text, fields))


def detail(text: str, code: str = "note", **fields: Any) -> None:
    """A note for programs, and for people who ask for details (`verbose`)."""
    emit(Event("note", code, text, fields, detail=True))


def warning(text: str, code: str = "warning", **fields: Any) -> None:
    """Something a person should know: it may not be what was meant."""
    emit(Event("warning", code, text, fields))


def progress(text: str, code: str = "progress", **fields: Any) -> None:
    """How far a long task has come. `fields` holds `done` and `total`, and what else is known."""
    emit(Event("progress", code, text, fields))


def advance(text: str, code: str, done: int, total: int, elapsed: float | None = None) -> None:
    """A long task has come to `done` of `total`, as its text says: "drawn: 3 of 10". `elapsed`: the seconds that this
    took, if it is to be said how many the rest will take."""
    fields: dict[str, Any] = {"done": done, "total": total, "ended": done == total}
    if elapsed is not None:
        fields["seconds_left"] = elapsed * (total - done) / done
        text += f", about {fields['seconds_left']:.0f} s left"
    progress(text, code, **fields)
