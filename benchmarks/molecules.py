"""A run on MOSES's molecules, on the protocol of MOSES.

    python -m benchmarks.molecules RUN [COUNT] [MOLSETS] [KEY=VALUE ...]

Draws COUNT samples (30,000) of a run that was trained on moses_train_300k.csv.gz, with the time that it takes, and
prints the metrics of MOSES against the test molecules: those beside the checkout (AFRESH_DATA), or the whole test split
in the unpacked wheel of molsets. Novelty is against the molecules that the run was trained on. KEY=VALUE are settings
of sampling, as min_p=0.02.
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
from pathlib import Path

import numpy as np

import afresh
from afresh.data.molecules.chem import canonical
from afresh.data.molecules.filters import passes
from afresh.evaluation import molecules as m

DATA = Path(os.environ.get("AFRESH_DATA", "../shared/data")) / "molecules_moses"


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


def main(run: str, count: int = 30_000, molsets: str = "", settings: Mapping[str, float] | None = None) -> None:
    model, chosen = afresh.load(run), dict(settings or {})
    model.sample(64, **chosen)  # builds the engine
    start = time.perf_counter()
    samples = list(model.sample(count, seed=1, **chosen).values)
    seconds = time.perf_counter() - start
    valid = sum(canonical(s) is not None for s in samples)
    print(f"{count:,} samples in {seconds:.1f} s: {valid / seconds:,.0f} valid molecules a second")
    folder = Path(molsets) / "moses" / "dataset" / "data"
    test = smiles_of(folder / "test.csv.gz" if molsets else DATA / "moses_test_50k.csv.gz")
    train = smiles_of(DATA / "moses_train_300k.csv.gz")
    print(json.dumps(scores(samples, test[: max(count, 10_000)], train), indent=1))


if __name__ == "__main__":
    given = [a for a in sys.argv[1:] if "=" not in a]
    by_hand = {k: float(v) for k, v in (a.split("=", 1) for a in sys.argv[1:] if "=" in a)}
    main(given[0], *(int(a) for a in given[1:2]), *given[2:3], settings=by_hand)
