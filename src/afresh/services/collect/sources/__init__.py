"""The sources that data can be collected from, in the order in which they are asked whether a place is theirs.

`bounded` reads one within its limits: what is wrong in its middle never ends a collection.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.core import UserError, events
from afresh.core.options import problems
from afresh.data.files import FileError
from afresh.data.limits import REASON, Limits, Meter, parsing
from afresh.data.storage.files import CANNOT_WRITE
from afresh.services.collect.record import Found, Rejection

# Files in this folder, each with a SOURCE.
SOURCES = ["collected", "repository", "hub", "sql", "python", "web", "warc", "webdataset", "chats", "tables", "folder"]


class Options(BaseModel):
    """The options of a source. Those of every source come first: what is found beyond them is left out, with a reason.

    They do not make another source of a place; where they change, it is read again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_items: int = Field(100_000_000, ge=1, description="items of the source, and reasons why others are left out")
    max_gb: float = Field(10_000, gt=0, description="bytes of the source, decompressed")
    max_hours: float = Field(240, gt=0, description="of the processor, to read the source")


class Unavailable(UserError):
    """A source cannot go on for now, as a database that went away: what it found is kept, it counts as not finished,
    and other sources go on."""


class Fetched(Protocol):
    """What was fetched before, so that nothing is fetched twice however often the collection is interrupted.

    consumed: how many of the first things that a source finds were written before. They are thrown away, so that it may
    give `CONSUMED` in their place instead of reading them again. facts: those of `get`, without its content. stale:
    what was fetched before the source was last refreshed.
    """

    consumed: int

    def facts(self, address: str) -> Mapping[str, Any] | None: ...
    def get(self, address: str) -> tuple[bytes, Mapping[str, Any]] | None: ...
    def stale(self, address: str) -> tuple[bytes, Mapping[str, Any]] | None: ...
    def put(self, address: str, content: bytes, facts: Mapping[str, Any]) -> None: ...


CONSUMED = Rejection("", "", "find", "consumed", "it was read before")


@dataclass(frozen=True)
class Source:
    """Where data comes from.

    accepts: whether a place, as it is given on the command line, is of this source. find: everything that is there, in
    an order that is the same each time. describe: lines of what would be found, without reading it all. A source whose
    content is fetched from elsewhere puts it into `Fetched` and asks there first. manner: the options that say how it
    is asked for, of which other values do not make another source of a place. permitting: likewise those that say what
    may be taken; where they change, the source is read again from what was fetched.
    """

    name: str
    about: str
    accepts: Callable[[str], bool]
    find: Callable[[str, Any, Fetched], Iterator[Found | Rejection]]
    describe: Callable[[str, Any], list[str]]
    options: type[Options] = Options
    manner: frozenset[str] = frozenset()
    permitting: frozenset[str] = frozenset()


def sources() -> list[Source]:
    """All sources, in the order in which they are asked."""
    return [import_module(f"afresh.services.collect.sources.{name}").SOURCE for name in SOURCES]


def source_of(place: str) -> Source:
    """The source of a place. Raises UserError, listing what is accepted, if there is none."""
    for source in sources():
        with suppress(FileError), parsing("place"):  # a place that it fails on is none of its own
            if source.accepts(place):
                return source
    known = "; ".join(f"{s.name}: {s.about}" for s in sources())
    raise UserError(f"{place} is not a place that data can be collected from. Accepted: {known}.", "unknown_source")


def own_options(source: Source) -> list[str]:
    """The names of the options that not every source has."""
    return [name for name in source.options.model_fields if name not in Options.model_fields]


def options_of(source: Source, given: Mapping[str, Any]) -> Options:
    """The options of a source. Raises UserError, listing all, for one that it does not have, or that is not valid."""
    try:
        return source.options.model_validate(dict(given))
    except ValidationError as error:
        listed, wrong = ", ".join((*own_options(source), *Options.model_fields)), problems(error, source.options)
        raise UserError(f"The source {source.name}: {wrong}. Its options are: {listed}.", "unknown_option") from None


GB, HOUR = 1 << 30, 3600
# Of the machine and not of the data, so that it is worth while to go on later.
PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT}
)


def bounded(
    source: Source, place: str, options: Options, fetched: Fetched, bytes_before: int
) -> Iterator[Found | Rejection]:
    """Everything at a place. Where the source fails in its middle, or has more than its limits allow, what came before
    stays, and a reason stands for the rest.

    bytes_before: of the first things, which were written before. Raises Unavailable; UserError for what is wrong before
    anything was found, as an option; and UserError if the disk is full.
    """
    limits = Limits(options.max_gb * GB, options.max_items, options.max_hours * HOUR)
    meter, count = Meter(limits), 0
    meter.bytes = bytes_before
    found = source.find(place, options, fetched)
    try:
        for one in found:
            count += 1
            new = count > fetched.consumed and isinstance(one, Found)
            meter.add(bytes=len(one.content) if new and isinstance(one, Found) else 0, items=1)
            with meter.paused():
                yield one
        return
    except GeneratorExit:
        if isinstance(found, Generator):  # at once, so that what it has opened is closed in its order
            found.close()
        raise
    except Unavailable:
        raise
    except UserError as error:
        if not count or error.code == CANNOT_WRITE:
            raise
        reason = str(error)
    except OSError as error:
        if error.errno in PASSING:
            raise Unavailable(f"it cannot be read for now: {error}", "not_readable") from None
        reason = str(error)
    except FileError as error:
        reason = str(error)
    except Exception as error:  # whatever a library raises for what nobody has foreseen
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:REASON]}"
    reason = f"not read further than its first {count:,} items and reasons: {reason}"
    events.warning(f"{place}: {reason}", "not_read_further")
    yield Rejection(place, place, "find", "source", reason)
