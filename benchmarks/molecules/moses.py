"""A run on MOSES's molecules, on the protocol of MOSES.

    python -m benchmarks moses RUN [COUNT] [MOLSETS] [KEY=VALUE ...]

Draws COUNT samples (30,000) of a run that was trained on a table of MOSES and prints the metrics of MOSES against its
test molecules: 50,000 that lie beside the checkout (AFRESH_DATA), or the whole split in MOLSETS, an unpacked wheel of
molsets. `real` are as many training molecules, the floor of each distance. Novelty is against all molecules of the
table that the run was trained on. KEY=VALUE are settings of sampling, as min_p=0.02 or order=confidence. The metrics of
PUBLISHED go into docs/results, a row for each family and table. What was computed of the test molecules, 7 ms for each,
stays in AFRESH_BENCH (or ~/.cache/afresh-bench). `benchmarks/molecules/speed.py` measures how fast a run draws.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import afresh
from afresh.domains.molecule import metrics as m
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.filters import passes
from afresh.engine.evaluation.estimate import Array
from afresh.runs.run import Run, metrics_rows
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.results import Row, save

WHOLE = 1_584_663  # molecules of the train split
# CharRNN on that (Polykovskiy et al. 2020, "Molecular Sets (MOSES)", tables 2 to 4)
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


def settings_of(words: Iterable[str]) -> dict[str, Any]:
    """Those of the words that are KEY=VALUE."""
    return {k: setting(v) for k, v in (w.split("=", 1) for w in words if "=" in w)}


def smiles_of(path: Path) -> list[str]:
    """The column SMILES of a table of MOSES, which may be compressed."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        return [row["SMILES"] for row in csv.DictReader(stream)]


@dataclass(frozen=True)
class Reference:
    """What the metrics compare with: of M molecules activations (M, 512), fingerprints (M, D) and numbers (M,) by their
    names, and how often each fragment and each scaffold is in them."""

    activations: Array
    fingerprints: Array
    numbers: Mapping[str, Array]
    fragments: Counter[str]
    scaffolds: Counter[str]

    @staticmethod
    def of(x: m.Molecules) -> Reference:
        fragments, scaffolds = (Counter(p for row in rows for p in row) for rows in (x.fragments, x.scaffolds))
        return Reference(x.activations, x.fingerprints, {n: x.numbers(n) for n in m.PROPERTIES}, fragments, scaffolds)

    @staticmethod
    def of_test(smiles: list[str]) -> Reference:
        """That of test molecules, which is computed once."""
        digest = hashlib.sha256("\n".join(smiles).encode()).hexdigest()[:16]
        arrays, counts = (work_folder("moses") / f"{digest}.{end}" for end in ("npz", "json"))
        if not counts.exists():
            made = Reference.of(m.Molecules(smiles))
            parts: dict[str, Any] = {
                "activations": made.activations.astype(np.float32),  # ChemNet's own precision
                "fingerprints": np.packbits(made.fingerprints.astype(bool), axis=1),
                **made.numbers,
            }
            np.savez(arrays, **parts)
            counts.write_text(json.dumps([made.fragments, made.scaffolds]))
        with np.load(arrays) as stored:
            bits: Any = np.unpackbits(stored["fingerprints"], axis=1)
            numbers = {n: stored[n] for n in m.PROPERTIES}
            return Reference(
                stored["activations"].astype(np.float64), bits, numbers, *map(Counter, json.loads(counts.read_text()))
            )


def distances(x: Reference, test: Reference) -> dict[str, float]:
    """How far molecules are from test molecules, by the names of MOSES."""
    return {
        "FCD/Test": m.frechet(x.activations, test.activations).value,
        "SNN/Test": float(m.nearest(x.fingerprints, test.fingerprints).mean()),
        "Frag/Test": m.cosine(x.fragments, test.fragments),
        "Scaf/Test": m.cosine(x.scaffolds, test.scaffolds),
        "IntDiv": m.internal_diversity(x.fingerprints).value,
        **{n: m.distance(x.numbers[n], test.numbers[n]).value for n in m.PROPERTIES},
    }


def scores(samples: list[str], test: list[str], train: list[str]) -> dict[str, Any]:
    """MOSES's metrics by their names, and those of as many training molecules."""
    valid = [c for s in samples if (c := canonical(s)) is not None]
    out: dict[str, Any] = {"valid": len(valid) / len(samples)}
    out |= {f"unique@{k}": len(set(valid[:k])) / k for k in m.UNIQUE if k <= len(valid)}
    out["Novelty"] = len(set(valid) - set(train)) / len(set(valid))
    x = m.Molecules(valid)
    out["Filters"] = float(np.mean([passes(f) for f in x.found]))
    real = m.Molecules([train[i] for i in np.random.default_rng(0).permutation(len(train))[: len(valid)]])
    own, floor, reference = Reference.of(x), Reference.of(real), Reference.of_test(test)
    out |= distances(own, reference)
    some = np.random.default_rng(0).permutation(len(test))[: len(valid)]
    out["IntDiv of the test"] = m.internal_diversity(reference.fingerprints[some]).value
    return out | {"real": distances(floor, reference)}


def rows_of(run: Run, size: int, found: Mapping[str, float], count: int, settings: Mapping[str, Any]) -> list[Row]:
    """The metrics of PUBLISHED of a run that has learnt `size` molecules, beside CharRNN's."""
    record, steps = run.record, metrics_rows(run)[-1]["step"]
    asked = "".join(f", {k} {v:g}" if isinstance(v, float) else f", {k} {v}" for k, v in settings.items())
    family = record.family if record.codec is None else f"{record.family} over a codec"
    tuned = "" if record.base_model is None else "tuned for "
    trained = f"{record.parameters / 1e6:.2f}M weights, {tuned}{steps:,} steps of {record.train.batch}"
    about = f"MOSES, {family}, {size:,} molecules, {trained}"
    goals = {
        "FCD/Test": (f"below {PUBLISHED['FCD/Test']}", found["FCD/Test"] < PUBLISHED["FCD/Test"]),
        "Novelty": (f"above {PUBLISHED['Novelty']}", found["Novelty"] > PUBLISHED["Novelty"]),
    }
    rows = []
    for name, peer in PUBLISHED.items():
        if name in found:
            goal, reached = goals.get(name, ("stated", True)) if size == WHOLE else ("stated", True)
            beside = f"{peer:g} (CharRNN, {WHOLE:,} molecules)"
            rows.append(
                Row(about, f"{name}{asked}", f"{found[name]:.4g}", beside, goal=goal, reached=reached, n=f"{count:,}")
            )
    return rows


def main(run: str, *words: str) -> None:
    plain, chosen = [w for w in words if "=" not in w], settings_of(words)
    count, molsets = int(plain[0]) if plain else 30_000, "".join(plain[1:2])
    model = afresh.load(run)
    samples = list(model.sample(count, seed=1, **chosen).values)
    folder = Path(molsets) / "moses" / "dataset" / "data"
    test = smiles_of(folder / "test.csv.gz" if molsets else data_folder("molecules_moses") / "moses_test_50k.csv.gz")
    opened = Run.open(Path(run))
    train = smiles_of(Path(opened.record.data.path))
    found = scores(samples, test, train)
    print(json.dumps(found, indent=1))
    rows = rows_of(opened, len(train), found, count, chosen)
    save(f"moses_{opened.record.family}" + ("_whole" if len(train) == WHOLE else ""), rows)


BENCHMARKS = (Benchmark("moses", ("RUN", "molecules_moses"), 10, main),)
