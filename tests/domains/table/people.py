"""A table of people as every test reads it: numbers, categories, dates, missing values, and rules between columns."""

from __future__ import annotations

import csv
import datetime
import random
from pathlib import Path
from typing import Any

NAMES = ("age", "height", "town", "code", "since", "member", "spent")
CODES = {"Ulm": "A", "Bonn": "B", "Kiel": "C"}


def people(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """`town` determines `code`; `spent` is 0 for all but members; `height` has two decimals and is missing at times."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        town, member = draw.choice(list(CODES)), draw.random() < 0.4
        day = datetime.date(2020, 1, 1) + datetime.timedelta(days=draw.randrange(1000))
        rows.append(
            {
                "age": draw.randint(18, 90),
                "height": "" if draw.random() < 0.1 else f"{draw.gauss(170, 10):.2f}",
                "town": town,
                "code": CODES[town],
                "since": day.isoformat(),
                "member": "yes" if member else "no",
                "spent": f"{draw.lognormvariate(3, 1):.1f}" if member else "0",
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
