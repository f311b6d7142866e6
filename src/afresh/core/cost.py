"""What a task costs, estimated before it begins, so that no request to a server takes it for hours.

The unit is an evaluation of the network for one whole example: an image, a window of a sound, a window of tokens. What
one example takes is told by its family (`Evaluations`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from afresh.core.errors import UserError

_most: ContextVar[int | None] = ContextVar("most evaluations", default=None)


@contextmanager
def at_most(evaluations: int) -> Iterator[None]:
    """Tasks inside the block, in this context, may take so many evaluations each."""
    token = _most.set(evaluations)
    try:
        yield
    finally:
        _most.reset(token)


def check_cost(evaluations: int, what: str) -> None:
    """Raises UserError if a task takes more evaluations of the network than are allowed in this context. `what` says
    what they are for, as "40 samples"."""
    most = _most.get()
    if most is not None and evaluations > most:
        raise UserError(
            f"{what} take about {evaluations:,} evaluations of the network, and a request may take {most:,}. Ask for "
            "fewer or smaller ones, or for fewer steps. The server's owner can allow more: `evaluations=NUMBER`.",
            "too_costly",
            evaluations=evaluations,
            most=most,
        )
