"""A run on MOSES's molecules, on the protocol of MOSES.

    python -m benchmarks.molecules RUN [COUNT] [MOLSETS] [KEY=VALUE ...]

Draws COUNT samples (30,000) of a run that was trained on moses_train_300k.csv.gz, with the time that it takes, and
prints the metrics of MOSES against the test molecules: those beside the checkout (AFRESH_DATA), or the whole test split
in the unpacked wheel of molsets. Novelty is against the molecules that the run was trained on. KEY=VALUE are settings
of sampling, as min_p=0.02 or order=confidence. The metrics of PUBLISHED go into docs/results, a row for each family.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import afresh
from afresh.data.molecules.chem import canonical
from afresh.data.molecules.filters import passes
from afresh.evaluation import molecules as m
from afresh.runs.run import Run
from benchmarks.table import Row, save

DATA = Path(os.environ.get("AFRESH_DATA", "../shared/data")) / "molecules_moses"


# CharRNN on the whole train split (Polykovskiy et al. 2020, "Molecular Sets (MOSES)", tables 2 to 4)
TRAIN = "1.58M molecules"
PUBLISHED = {
    "valid": 0.9748,
    "unique@10000": 0.9994,
    "Novelty": 0.8419,
    "FCD/Test": 0.0732,
    "SNN/Test": 0.6015,
    "Filters": 0.9943,
}


def setting(text: str) -> int | float | str:
    """The value of a setting of sampling."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def smiles_of(path: Path) -> list[str]:
    with gzip.open(path, "rt") as stream:
        return [row["SMILES"] for row in csv.DictReader(stream)]


def scores(samples: list[str], test: list[str], train: list[str]) -> dict[str, float]:
    """MOSES's metrics by their names."""
    valid = [c for s in samples if (c := canonical(s)) is not None]
    x, y = m.Molecules(valid), m.Molecules(test)
    out = {"valid": len(valid) / len(samples)}
    out |= {f"unique@{k}": len(set(valid[:k])) / k for k in m.UNIQUE if k <= len(valid)}
    out["Novelty"] = len(set(valid) - set(train)) / len(set(valid))
    out["FCD/Test"] = m.frechet(x.activations, y.activations).value
    out["SNN/Test"] = float(m.nearest(x.fingerprints, y.fingerprints).mean())
    for name, (a, b) in {"Frag": (x.fragments, y.fragments), "Scaf": (x.scaffolds, y.scaffolds)}.items():
        out[f"{name}/Test"] = m.cosine(*(Counter(p for row in s for p in row) for s in (a, b)))
    out["IntDiv"] = m.internal_diversity(x.fingerprints).value
    out["IntDiv of the test"] = m.internal_diversity(y.fingerprints).value
    out["Filters"] = float(np.mean([passes(f) for f in x.found]))
    return out | {name: m.distance(x.numbers(name), y.numbers(name)).value for name in m.PROPERTIES}


def rows_of(run: str, found: Mapping[str, float], speed: float, count: int, settings: Mapping[str, Any]) -> list[Row]:
    """The metrics of PUBLISHED, beside CharRNN's, and how fast it draws."""
    record = Run.open(Path(run)).record
    size = f"{record.parameters / 1e6:.2f}M weights, {record.train.steps:,} steps of {record.train.batch}"
    asked = "".join(f", {k} {v:g}" if isinstance(v, float) else f", {k} {v}" for k, v in settings.items())
    family = record.family if record.codec is None else f"{record.family} over a codec"
    about = f"MOSES, {family}, {size}"
    return [
        *(
            Row(
                about,
                f"{name}{asked}",
                f"{found[name]:.4g}",
                f"{peer:g} (CharRNN, {TRAIN})",
                None,
                "stated",
                True,
                f"{count:,}",
            )
            for name, peer in PUBLISHED.items()
            if name in found
        ),
        Row(
            about,
            f"valid molecules a second{asked}",
            f"{speed:,.2g}" if speed < 10 else f"{speed:,.0f}",
            "",
            None,
            "at least 3,000",
            speed >= 3_000,
            f"{count:,}",
        ),
    ]


def main(run: str, count: int = 30_000, molsets: str = "", settings: Mapping[str, Any] | None = None) -> None:
    model, chosen = afresh.load(run), dict(settings or {})
    model.sample(64, **chosen)  # builds the engine
    start = time.perf_counter()
    samples = list(model.sample(count, seed=1, **chosen).values)
    seconds = time.perf_counter() - start
    speed = sum(canonical(s) is not None for s in samples) / seconds
    print(f"{count:,} samples in {seconds:.1f} s: {speed:,.0f} valid molecules a second")
    folder = Path(molsets) / "moses" / "dataset" / "data"
    test = smiles_of(folder / "test.csv.gz" if molsets else DATA / "moses_test_50k.csv.gz")
    train = smiles_of(DATA / "moses_train_300k.csv.gz")
    found = scores(samples, test[: max(count, 10_000)], train)
    print(json.dumps(found, indent=1))
    save(f"moses_{Run.open(Path(run)).record.family}", rows_of(run, found, speed, count, chosen))


if __name__ == "__main__":
    given = [a for a in sys.argv[1:] if "=" not in a]
    by_hand = {k: setting(v) for k, v in (a.split("=", 1) for a in sys.argv[1:] if "=" in a)}
    main(given[0], *(int(a) for a in given[1:2]), *given[2:3], settings=by_hand)
