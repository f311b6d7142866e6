"""The peer of our BKT: pyBKT, in an environment of its own in which `pyBKT` is installed.

`python peer_pybkt.py TRAIN.csv TEST.csv OUT.json [forgets]`: fits BKT to each skill of a log with the columns learner,
exercise, skill, correct and time, and writes the chance of each answer of the other log, in its order.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

COLUMNS = {"user_id": "learner", "skill_name": "skill", "correct": "correct", "order_id": "order"}


def main(train: Path, test: Path, out: Path, forgets: bool) -> None:
    import pandas
    from pyBKT.models import Model

    logs = []
    for path in (train, test):
        log = pandas.read_csv(path)
        log["order"] = range(len(log))
        logs.append(log)
    begun = time.monotonic()
    model = Model(seed=0, num_fits=3, parallel=False)
    model.fit(data=logs[0], defaults=COLUMNS, forgets=forgets)
    seconds = time.monotonic() - begun
    found = model.predict(data=logs[1]).sort_values("order")
    out.write_text(json.dumps({"chances": found["correct_predictions"].tolist(), "fit_seconds": seconds}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), forgets="forgets" in sys.argv[4:])
