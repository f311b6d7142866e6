"""A source within its limits. What is wrong in its middle never ends a collection."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator

from afresh.core import UserError, events
from afresh.data.files import FileError
from afresh.data.limits import REASON, Limits, Meter
from afresh.data.storage.files import CANNOT_WRITE
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source, Unavailable

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
