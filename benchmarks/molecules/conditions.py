"""How far molecules are from the numbers that they were asked to have.

    python -m benchmarks molecule_conditions RUN [GUIDANCE ...]

RUN has learnt conditions that RDKit computes (`--data properties=logP,QED`). Each of 40 held-out molecules of MOSES
(AFRESH_DATA) is a request for its own numbers, for which 25 molecules are drawn, with each GUIDANCE (1 1.5 2 3). Prints
the mean absolute error of each number over valid molecules with the standard error over requests, the share of valid
ones, and as a floor and a ceiling the error of molecules that were asked for nothing, and of the data's deviation.
"""

from __future__ import annotations

import json

import numpy as np

import afresh
from afresh.domains.molecule.chem import canonical, chem
from afresh.domains.molecule.properties import numbers_of
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.molecules.moses import smiles_of

REQUESTS, EACH = 40, 25


def numbers(smiles: str, names: tuple[str, ...]) -> list[float]:
    return list(numbers_of(chem().MolFromSmiles(smiles), names).values())


def main(run: str, *guidances: str) -> None:
    model = afresh.load(run)
    names = tuple(model.run.conds)
    asked = smiles_of(data_folder("molecules_moses") / "moses_test_50k.csv.gz")[:: 50_000 // REQUESTS][:REQUESTS]
    wanted = [numbers(s, names) for s in asked]
    free = [c for s in model.sample(1_000, seed=1, number={}).values if (c := canonical(s))]
    base = np.array([numbers(s, names) for s in free])
    chance = np.abs(np.array(wanted)[:, None] - base[None]).mean((0, 1))
    print(json.dumps({"asked for nothing": dict(zip(names, chance.round(3).tolist(), strict=True))}))
    for guidance in map(float, guidances or ("1", "1.5", "2", "3")):
        errors, valid, different = [], 0, set[str]()
        for i, want in enumerate(wanted):
            number = dict(zip(names, want, strict=True))
            drawn = [canonical(s) for s in model.sample(EACH, number=number, guidance=guidance, seed=i).values]
            found = np.array([numbers(s, names) for s in drawn if s]).reshape(-1, len(names))
            valid += len(found)
            different |= {s for s in drawn if s}
            if len(found):
                errors.append(np.abs(found - np.array(want)).mean(0))
        mean, error = np.mean(errors, 0), np.std(errors, 0, ddof=1) / len(errors) ** 0.5
        row = {n: f"{m:.3f} +-{e:.3f}" for n, m, e in zip(names, mean, error, strict=True)}
        share = round(valid / (REQUESTS * EACH), 3)
        print(json.dumps({"guidance": guidance, **row, "valid": share, "different": len(different)}), flush=True)


BENCHMARKS = (Benchmark("molecule_conditions", ("RUN", "molecules_moses"), 5, main),)
