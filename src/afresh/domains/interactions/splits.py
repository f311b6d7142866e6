"""A log to histories, some of whose events are held out: by time, the last of each user, or those of some users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.split import share
from afresh.domains.interactions.history import Features, History
from afresh.domains.interactions.log import Log

Split = Literal["time", "last", "user"]
HELD_OUT = 0.1
FLATTERS = "; there are no times to split by, so what others chose later is learnt, which flatters"


@dataclass(frozen=True)
class Side:
    """Histories of one side of a split, with the number of the user of each."""

    histories: list[History]
    users: list[int]


def divide(log: Log, how: Split | None) -> tuple[Side, Side, list[str]]:
    """The histories to train on, those that are held out, and notes.

    `time`: the events after a point in time, a tenth of all, are predicted from those before, as a model meets them in
    use. `last`: the last event of each user, from all before it; other users' later events are then known in training,
    which flatters. `user`: the second half of the histories of a tenth of the users, who are not trained on. None:
    `time` if there are times. Equal times keep the order of the rows. Raises UserError if nothing would be left.
    """
    bounds = np.append(np.flatnonzero(np.diff(log.user, prepend=-1)), len(log))
    guessed = how is None
    how = how or ("time" if spread(log) else "last")
    if how == "time" and not spread(log):
        raise UserError("A split by time needs times that differ. Choose `data.split=last` or `data.split=user`.")
    if how == "time":
        point = float(np.quantile(log.time, 1 - HELD_OUT, method="lower"))
        kept = np.add.reduceat(log.time <= point, bounds[:-1]) if len(log) else bounds[:-1]
        notes = [f"held out: the {int((log.time > point).sum()):,} events after {when(point)}, predicted from earlier"]
    elif how == "last":
        lengths = np.diff(bounds)
        kept = np.where(lengths > 1, lengths - 1, lengths)
        notes = [
            f"held out: the last event of {counted(int((lengths > 1).sum()), 'user')}{FLATTERS if guessed else ''}"
        ]
        if n := int((lengths == 1).sum()):
            notes.append(f"{counted(n, 'user')} with a single event, used for training only")
    else:
        ours = np.array([share(log.users[u], "split") < HELD_OUT for u in log.user[bounds[:-1]]])
        ours &= np.diff(bounds) > 1
        kept = np.where(ours, 0, np.diff(bounds))
        notes = [f"held out: the second half of the histories of {counted(int(ours.sum()), 'user')}"]
    train, heldout = _sides(log, bounds, kept)
    if not train.histories or not heldout.histories:
        missing = "train on" if not train.histories else "hold out"
        sizes = np.diff(bounds)
        people = f"{counted(len(log), 'event')} of {counted(len(sizes), 'user')}, at most {sizes.max(initial=0)} of one"
        raise UserError(
            f"The split {how!r} leaves nothing to {missing}: there are {people}. Users need two events or more, one of "
            "which is held out. Give a longer log, or look at what was read with `afresh data`."
        )
    return train, heldout, notes


def spread(log: Log) -> bool:
    """Whether the events have times that differ enough to divide them."""
    return log.timed and len(np.unique(log.time)) >= 1 / HELD_OUT


def when(time: float) -> str:
    """A time as a date, or as the number that it is."""
    return str(np.datetime64(int(time), "s")).replace("T", " ") if time > 1e8 else f"{time:g}"


def _sides(log: Log, bounds: NDArray[np.int64], kept: NDArray[Any]) -> tuple[Side, Side]:
    """Of each user, the first `kept` events are for training; the rest are predicted from all before."""
    train, heldout = Side([], []), Side([], [])
    names = np.array(log.items, dtype=object)
    timed = log.timed
    columns = {k: {i: v for i, v in zip(log.items, vs, strict=True) if v is not None} for k, vs in log.features.items()}
    known = Features(columns) if columns else None
    for a, b, n in zip(bounds[:-1].tolist(), bounds[1:].tolist(), kept.tolist(), strict=True):
        user = int(log.user[a])
        items = tuple(names[log.item[a:b]].tolist())
        times = tuple(log.time[a:b].tolist()) if timed else ()
        if n:
            train.histories.append(History(log.users[user], items[:n], times[:n], known=known))
            train.users.append(user)
        if n < b - a:
            context = n or (b - a) // 2
            heldout.histories.append(History(log.users[user], items, times, context, known))
            heldout.users.append(user)
    return train, heldout


def traits_of(log: Log, side: Side) -> Mapping[str, list[Any]]:
    """The columns of users' traits, a value for each history of a side."""
    return {name: [values[u] for u in side.users] for name, values in log.traits.items()}
