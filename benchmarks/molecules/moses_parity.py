"""The metrics of molecules beside those of MOSES's own code, on the same molecules.

    python -m benchmarks moses_parity MOLSETS

MOLSETS is the unpacked wheel of molsets 0.3.1 (pip download --no-deps molsets; unzip), whose pinned dependencies no
longer install. Its modules of metrics are imported as they are, with the names that newer libraries removed. The
molecules are the first 2,000 of its test split and, as samples, 1,960 of its training split with some copies, some
broken texts, and some molecules that its filters refuse.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from afresh.domains.molecule import metrics as ours
from afresh.domains.molecule.chem import canonical, chem
from afresh.domains.molecule.filters import passes
from benchmarks.common.benchmark import Benchmark

COUNT = 2_000
REFUSED = (  # by the filters, each for another reason
    "O=CCCc1ccccc1",
    "O=C1C=CC(=O)C=C1",
    "C1CCCCCCC1",
    "CC[N+](C)(C)C",
    "C[Si](C)(C)C",
    "CCCl",
    "C1OC1CC",
    "CN=C=O",
    "CCSSCC",
    "C=CC#N",
)
DIGITS = 5e-5


def smiles_of(folder: Path, split: str, count: int) -> list[str]:
    with gzip.open(folder / "moses" / "dataset" / "data" / f"{split}.csv.gz", "rt") as stream:
        rows = csv.reader(stream)
        next(rows)
        return [row[0] for row, _ in zip(rows, range(count), strict=False)]


def moses_metrics(folder: Path) -> Any:
    """The module moses.metrics.metrics, without the models and the data of its package."""
    import pandas
    from scipy import linalg

    setattr(pandas.DataFrame, "append", lambda self, other, sort=False: pandas.concat([self, other], sort=sort))  # noqa: B010
    setattr(np, "NaN", np.nan)  # noqa: B010
    setattr(np, "row_stack", np.vstack)  # noqa: B010
    root = linalg.sqrtm
    linalg.sqrtm = lambda a, disp=True: root(a) if disp else (root(a), 0.0)
    for name in ("moses", "moses.metrics"):
        module = types.ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    data: Any = types.ModuleType("moses.dataset")
    data.get_dataset = data.get_statistics = None
    sys.modules["moses.dataset"] = data
    six: Any = types.ModuleType("rdkit.six")
    six.iteritems = dict.items
    sys.modules["rdkit.six"] = six
    chem().Crippen = importlib.import_module("rdkit.Chem.Crippen")
    return importlib.import_module("moses.metrics.metrics")


def moses_scores(folder: Path, samples: list[str], test: list[str], train: list[str]) -> dict[str, float]:
    found = moses_metrics(folder).get_all_metrics(
        samples, k=[1000], test=test, test_scaffolds=test[:2], train=train, ptest=None
    )
    return {k: float(v) for k, v in found.items() if "TestSF" not in k}


def own_scores(samples: list[str], test: list[str], train: list[str]) -> dict[str, float]:
    valid = [c for s in samples if (c := canonical(s)) is not None]
    x, y = ours.Molecules(valid), ours.Molecules([c for s in test if (c := canonical(s)) is not None])
    counts = [(x.fragments, y.fragments), (x.scaffolds, y.scaffolds)]
    frag, scaf = (ours.count_similarity(a, ours.Counter(p for row in b for p in row)).value for a, b in counts)
    return {
        "valid": len(valid) / len(samples),
        "unique@1000": len(set(valid[:1000])) / 1000,
        "FCD/Test": ours.frechet(x.activations, y.activations).value,
        "SNN/Test": float(ours.nearest(x.fingerprints, y.fingerprints).mean()),
        "Frag/Test": frag,
        "Scaf/Test": scaf,
        "IntDiv": ours.internal_diversity(x.fingerprints).value,
        "IntDiv2": ours.internal_diversity(x.fingerprints, 2).value,
        "Filters": float(np.mean([passes(m) for m in x.found])),
        **{name: ours.distance(x.numbers(name), y.numbers(name)).value for name in ours.PROPERTIES},
        "Novelty": len(set(valid) - set(train)) / len(set(valid)),
    }


def main(molsets: str) -> None:
    """Prints both. Raises SystemExit if one of them differs in the fourth digit."""
    folder = Path(molsets)
    test, train = smiles_of(folder, "test", COUNT), smiles_of(folder, "train", 3 * COUNT)
    samples = [*train[COUNT : 2 * COUNT - 40], *train[COUNT : COUNT + 20], *REFUSED]
    samples += ("c1ccccc", "C(C)(C)(C)(C)C") * 5
    own = own_scores(samples, test, train[:COUNT])
    known = moses_scores(folder, samples, test, train[:COUNT])
    wrong = []
    print(f"{'metric':14}{'afresh':>12}{'molsets':>12}{'difference':>14}")
    for name, value in known.items():
        gap = own[name] - value
        wrong += [name] if abs(gap) > DIGITS * max(1.0, abs(value)) else []
        print(f"{name:14}{own[name]:12.6f}{value:12.6f}{gap:14.1e}")
    if wrong:
        raise SystemExit(f"different: {', '.join(wrong)}")
    print("equal to four digits")


BENCHMARKS = (Benchmark("moses_parity", ("MOLSETS",), 2, main),)
