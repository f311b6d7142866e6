"""The peer of our BKT: pyBKT, in an environment of its own in which `pyBKT` is installed.

It fits BKT to each skill of a log with the columns learner, exercise, skill, correct and time, and tells the chance of
each answer of the other log, in its order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.processes import answer

COLUMNS = {"user_id": "learner", "skill_name": "skill", "correct": "correct", "order_id": "order"}


@dataclass(frozen=True)
class Ask:
    """Paths of two logs."""

    train: str
    test: str


def learn(ask: Ask, folder: Path) -> dict[str, Any]:
    import pandas
    from pyBKT.models import Model

    logs = []
    for path in (ask.train, ask.test):
        log = pandas.read_csv(path)
        log["order"] = range(len(log))
        logs.append(log)
    begun = time.monotonic()
    model = Model(seed=0, num_fits=3, parallel=False)
    model.fit(data=logs[0], defaults=COLUMNS)
    seconds = time.monotonic() - begun
    found = model.predict(data=logs[1]).sort_values("order")
    return {"chances": found["correct_predictions"].tolist(), "fit_seconds": seconds}


if __name__ == "__main__":
    answer(Ask, learn)
