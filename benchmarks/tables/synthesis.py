"""Synthetic Adult and MAGIC: whether XGBoost tells rows from real ones, what a classifier learns from them, and copies.

Detection is SDMetrics' score, 1 - (2 max(AUC, 1/2) - 1) in 3-fold cross-validation, with XGBoost's defaults in place of
the logistic regression, as Scassola et al. 2026 ("A sobering look at tabular data generation") compare models by it:
synthetic rows against as many training rows, and beside it against test rows. A run keeps a
tenth of the training rows apart to choose its weights by, and nothing sees test rows before it is judged.

Beside it: training rows drawn with replacement, training rows whose columns are drawn apart, and where the packages are
installed (`pip install --no-deps ctgan rdt faker ForestDiffusion`) CTGAN for the same minutes and Forest-Flow.
Needs xgboost.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save
from benchmarks.tables.tables import Cells, divided, read, write

MINUTES, FOLDS = 10.0, 3
GOALS = {"adult": 0.855, "magic": 0.860}  # of TabPC; TabDiff has .841 and .773
USE = {"adult": 0.9162}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """`detection`: against training rows, and `fresh` against test rows. `use`: the AUC on test rows of XGBoost fitted
    to the rows. `copies`: the share of rows that are equal to a training row."""

    detection: float
    fresh: float
    use: float
    copies: float
    seconds: float


def matrices(*tables: Cells) -> list[Array]:
    """Numbers as they are, and a column for each value of a category; the last column says whether the class is that of
    the first training row."""
    first = tables[0][0][-1]
    every = [row for table in tables for row in table]
    columns: list[Array] = []
    for cells in zip(*(row[:-1] for row in every), strict=True):
        try:
            columns.append(np.array([float(c) for c in cells]))
        except ValueError:
            values = sorted(set(cells))
            columns += [np.array([c == v for c in cells], np.float64) for v in values]
    columns.append(np.array([row[-1] == first for row in every], np.float64))
    ends = np.cumsum([len(table) for table in tables])[:-1]
    return np.split(np.stack(columns, 1), ends)


def classifier() -> Any:
    import xgboost

    return xgboost.XGBClassifier(random_state=0)


def detection(real: Array, other: Array, seed: int = 0) -> float:
    """1 if rows cannot be told apart, 0 if all can."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    draw = np.random.default_rng(seed)
    n = min(len(real), len(other))
    x = np.concatenate([t[draw.permutation(len(t))[:n]] for t in (real, other)])
    y = np.repeat([1, 0], n)
    aucs = []
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        p = classifier().fit(x[fit], y[fit]).predict_proba(x[test])[:, 1]
        aucs.append(max(0.5, float(roc_auc_score(y[test], p))))
    return 2 - 2 * float(np.mean(aucs))


def judged(train: Cells, test: Cells, rows: Cells, seconds: float) -> Judged:
    from sklearn.metrics import roc_auc_score

    a, b, c = matrices(train, test, rows)
    p = classifier().fit(c[:, :-1], c[:, -1]).predict_proba(b[:, :-1])[:, 1]
    known = set(map(tuple, train))
    copies = sum(tuple(row) in known for row in rows) / len(rows)
    return Judged(detection(a, c), detection(b, c), float(roc_auc_score(b[:, -1], p)), copies, seconds)


# --------------------------------------------------------------------------- contenders

Make = Callable[[str, list[str], Cells, Path, float], Cells]


def ours(name: str, names: list[str], train: Cells, root: Path, minutes: float) -> Cells:
    data, run, out = root / "train.csv", root / f"run-{minutes:g}", root / "rows"
    write(data, names, train)
    command = ["afresh", "train", str(data), "--modality", "table", "--minutes", f"{minutes:g}", "--out", str(run)]
    processes.run([*command, "--force", "--no-measure"], root / "train.log")
    drawing = ["afresh", "rows", str(run), "-n", str(len(train)), "--out", str(out), "--force"]
    processes.run(drawing, root / "rows.log")
    return read(out / "rows.csv")


def bootstrap(name: str, names: list[str], train: Cells, root: Path, minutes: float) -> Cells:
    return random.Random(1).choices(train, k=len(train))


def apart(name: str, names: list[str], train: Cells, root: Path, minutes: float) -> Cells:
    draw = random.Random(1)
    columns = [draw.sample(column, len(column)) for column in zip(*train, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def ctgan(name: str, names: list[str], train: Cells, root: Path, minutes: float) -> Cells:
    """CTGAN (Xu et al. 2019) with its defaults, for as many epochs as the minutes allow."""
    import pandas
    from ctgan import CTGAN

    frame = pandas.DataFrame(train, columns=names)
    discrete = [n for n in names if pandas.to_numeric(frame[n], errors="coerce").isna().any()]
    for column in set(names) - set(discrete):
        frame[column] = pandas.to_numeric(frame[column])
    begun = time.monotonic()
    CTGAN(epochs=1).fit(frame, discrete)
    one = time.monotonic() - begun
    model = CTGAN(epochs=max(1, int(60 * minutes / one)))
    model.fit(frame, discrete)
    return [list(map(str, row)) for row in model.sample(len(train)).to_numpy().tolist()]


def forest(name: str, names: list[str], train: Cells, root: Path, minutes: float) -> Cells:
    """Forest-Flow (Jolicoeur-Martineau et al. 2024) with 20 times and 10 copies of each row, as its 50 and 100 take
    hours."""
    from ForestDiffusion import ForestDiffusionModel

    columns, levels = [], {}
    for i, cells in enumerate(zip(*train, strict=True)):
        try:
            columns.append(np.array([float(c) for c in cells]))
        except ValueError:
            levels[i] = sorted(set(cells))
            columns.append(np.array([levels[i].index(c) for c in cells], np.float64))
    made = ForestDiffusionModel(
        np.stack(columns, 1), n_t=20, duplicate_K=10, cat_indexes=list(levels), diffusion_type="flow", n_jobs=2
    ).generate(batch_size=len(train))
    return [[levels[i][int(v)] if i in levels else repr(float(v)) for i, v in enumerate(row)] for row in made]


CONTENDERS: dict[str, Make] = {"afresh": ours, "bootstrap": bootstrap, "apart": apart, "ctgan": ctgan, "forest": forest}
COMPARED = {"afresh", "bootstrap", "apart"}  # what results are saved of; the others are beside where they ran
MODULES = {"ctgan": "ctgan", "forest": "ForestDiffusion"}


def main(*given: str) -> None:
    parser = parser_of("tables_synthesis", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="contenders")
    parser.add_argument("--tables", nargs="*", default=list(GOALS), help="adult, magic")
    asked = parser.parse_args(given)
    found: dict[str, dict[str, Judged]] = {}
    for name in asked.tables:
        names, train, test = divided(name)
        found[name] = {"real": judged(train, test, test, 0.0)}
        print(name, "test rows beside training rows", json.dumps(asdict(found[name]["real"])), flush=True)
        for contender in asked.only:
            if contender in MODULES and find_spec(MODULES[contender]) is None:
                print(f"{name} {contender}: not installed", flush=True)
                continue
            root = work_folder(f"tables/{name}/{contender}")
            begun = time.monotonic()
            rows = CONTENDERS[contender](name, names, train, root, asked.minutes)
            found[name][contender] = judged(train, test, rows, time.monotonic() - begun)
            print(name, contender, json.dumps(asdict(found[name][contender])), flush=True)
    if asked.minutes == MINUTES and set(asked.only) >= COMPARED and set(asked.tables) == set(GOALS):
        save("tables_synthesis", [row for name, judgements in found.items() for row in rows_of(name, judgements)])


def rows_of(name: str, found: dict[str, Judged]) -> list[Row]:
    mine = found["afresh"]
    n = f"one training, as many rows as there are to learn from, {mine.seconds / 60:.1f} minutes with drawing them"

    def row(what: str, field: str, goal: float | None) -> Row:
        value = getattr(mine, field)
        others = "; ".join(f"{k} {getattr(v, field):.3f}" for k, v in found.items() if k != "afresh")
        limit = "stated" if goal is None else f"≥ {goal}"
        return Row(name, what, f"{value:.3f}", others, None, limit, goal is None or value >= goal, n)

    return [
        row("XGBoost detection, training rows", "detection", GOALS[name]),
        row("XGBoost detection, test rows", "fresh", None),
        row("AUC on test rows of XGBoost fitted to the rows", "use", USE.get(name)),
        row("exact copies of training rows", "copies", None),
    ]


BENCHMARKS = (Benchmark("tables_synthesis", (), 60, main),)
