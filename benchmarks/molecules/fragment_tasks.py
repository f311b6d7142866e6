"""Molecules built on parts of known drugs, by one run of the family masked, or of the transformer on fragments.

    python -m benchmarks fragment_tasks RUN [COUNT] [KEY=VALUE ...]

The tasks and the ten drugs are those of Noutahi et al. 2024 ("Gotta be SAFE"), section 4.2, and the measures those of
Lee et al. 2025 (GenMol), section 4.2, and of its code: of COUNT (100) draws for each part, the share of valid molecules
that keep the part, of different ones among them, and the quality, the share of all draws that are valid, different,
drug-like (QED of at least 0.6) and easy to make (SA of at most 4). As in that code, the largest piece of each draw
counts, and attachment points of the part may stay unused; `attached` is the share of all draws that use each of them.
Nothing is drawn again, but in a second row of linkers.
The cuts of those papers are not published in a package, so the parts are cut here by one rule: at the acyclic single
bonds of rings. KEY=VALUE are settings of sampling. Without stereo. The means over the drugs go into docs/results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import afresh
from afresh.domains.molecule.chem import canonical, chem
from afresh.domains.molecule.parts import contains
from afresh.domains.molecule.properties import numbers_of
from afresh.runs.run import Run, metrics_rows
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

DRUGS = {
    "baricitinib": "CCS(=O)(=O)N1CC(CC#N)(n2cc(-c3ncnc4[nH]ccc34)cn2)C1",
    "cyclothiazide": "NS(=O)(=O)c1cc2c(cc1Cl)NC(C1CC3C=CC1C3)NS2(=O)=O",
    "eliglustat": "CCCCCCCC(=O)NC(CN1CCCC1)C(O)c1ccc2c(c1)OCCO2",
    "erlotinib": "C#Cc1cccc(Nc2ncnc3cc(OCCOC)c(OCCOC)cc23)c1",
    "futibatinib": "C=CC(=O)N1CCC(n2nc(C#Cc3cc(OC)cc(OC)c3)c3c(N)ncnc32)C1",
    "lesinurad": "O=C(O)CSc1nnc(Br)n1-c1ccc(C2CC2)c2ccccc12",
    "liothyronine": "NC(Cc1cc(I)c(Oc2ccc(O)c(I)c2)c(I)c1)C(=O)O",
    "lovastatin": "CCC(C)C(=O)OC1CC(C)C=C2C=CC(C)C(CCC3CC(O)CC(=O)O3)C21",
    "maribavir": "CC(C)Nc1nc2cc(Cl)c(Cl)cc2n1C1OC(CO)C(O)C1O",
    "spirapril": "CCOC(=O)C(CCc1ccccc1)NC(C)C(=O)N1CC2(CC1C(=O)O)SCCS2",
}
BOND = "[R]-!@[*]"  # acyclic, single, at a ring
QED, SA = 0.6, 4.0  # of a molecule of quality
LINKED, REDRAWN = "linker design", "linker design, invalid ones drawn again"
# GenMol V2 (Lee et al. 2025; the table of its repository), in percent: valid, different, of quality. Its linkers in one
# step, and in two, in which what cannot be linked is left out, as if it were drawn again.
PUBLISHED = {
    "motif extension": (99.4, 84.5, 49.0),
    "scaffold decoration": (99.2, 90.5, 39.7),
    "superstructure": (99.7, 89.8, 39.0),
    LINKED: (81.8, 87.1, 28.6),
    REDRAWN: (100.0, 76.6, 18.4),
}
MEASURES = ("valid", "unique", "quality")
GOALS = {("motif extension", "quality"), ("scaffold decoration", "quality"), (LINKED, "valid")}


def ends(found: Any) -> list[Any]:
    """The fragments with one cut each, the largest first, with a `*` where they were cut."""
    library = chem()
    bonds = sorted(
        {found.GetBondBetweenAtoms(*p).GetIdx() for p in found.GetSubstructMatches(library.MolFromSmarts(BOND))}
    )
    pieces = library.GetMolFrags(library.FragmentOnBonds(found, bonds, True), asMols=True)
    return sorted((p for p in pieces if stars(p) == 1), key=lambda p: (-p.GetNumHeavyAtoms(), library.MolToSmiles(p)))


def stars(piece: Any) -> int:
    return sum(a.GetAtomicNum() == 0 for a in piece.GetAtoms())


def text(piece: Any) -> str:
    """The SMILES of a part, with `*` where it goes on."""
    for atom in piece.GetAtoms():
        atom.SetIsotope(0)
    written: str = chem().MolToSmiles(piece)
    return written


def scaffold(found: Any) -> Any:
    """The Bemis-Murcko scaffold of a drug."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return MurckoScaffold.GetScaffoldForMol(found)


def motif(found: Any) -> str:
    return text(ends(found)[0])


def decorated(found: Any) -> str:
    """The scaffold with a `*` for every side chain."""
    library = chem()
    core = library.ReplaceSidechains(found, scaffold(found))
    return text(core)


def linked(found: Any) -> str:
    """The two largest ends."""
    return ".".join(map(text, ends(found)[:2]))


TASKS: Mapping[str, Callable[[Any], str]] = {
    "motif extension": motif,
    "scaffold decoration": decorated,
    "superstructure": lambda found: text(scaffold(found)),
    LINKED: linked,
    REDRAWN: linked,
}


def without_points(part: str) -> Any:
    """A part to search for, without its attachment points."""
    found = chem().RWMol(chem().MolFromSmiles(part))
    for i in sorted((a.GetIdx() for a in found.GetAtoms() if a.GetAtomicNum() == 0), reverse=True):
        found.RemoveAtom(i)
    return found


def scores(drawn: list[str], part: str) -> dict[str, float]:
    """In percent: of all draws of a part valid ones with the part, different ones among these, quality, and those whose
    attachment points are all used."""
    query, library = without_points(part), chem()
    largest = [max(c.split("."), key=len) for s in drawn if (c := canonical(s)) is not None]
    kept = [s for s in largest if library.MolFromSmiles(s).HasSubstructMatch(query)]
    good = 0
    for smiles in set(kept):
        numbers = numbers_of(library.MolFromSmiles(smiles), ("QED", "SA"))
        good += numbers["QED"] >= QED and numbers["SA"] <= SA
    return {
        "valid": 100 * len(kept) / len(drawn),
        "unique": 100 * len(set(kept)) / max(1, len(kept)),
        "quality": 100 * good / len(drawn),
        "attached": 100 * sum(contains(s, part) for s in kept) / len(drawn),
    }


def rows_of(run: Run, found: Mapping[str, Mapping[str, float]], settings: Mapping[str, Any], n: str) -> list[Row]:
    """A row for each measure of each task, beside what is published."""
    record, asked = run.record, "".join(f", {k} {v}" for k, v in settings.items())
    trained = f"{metrics_rows(run)[-1]['step']:,} steps of {record.train.batch}"
    about = f"Parts of drugs, {record.family}, {record.parameters / 1e6:.2f}M weights, {trained}"
    rows = []
    for task, means in found.items():
        for measure, value in means.items():
            peer = dict(zip(MEASURES, PUBLISHED[task], strict=True)).get(measure)
            beside = "" if peer is None else f"{peer:g}% (GenMol V2)"
            goal, reached = "stated", True
            if peer is not None and (task, measure) in GOALS:
                goal, reached = f"above {peer:g}%", value > peer
            rows.append(Row(about, f"{task}: {measure}{asked}", f"{value}%", beside, goal=goal, reached=reached, n=n))
    return rows


def main(run: str, samples: str = "100", *settings: str) -> None:
    model, count = afresh.load(run), int(samples)
    chosen: dict[str, Any] = {
        k: json.loads(v) if v[:1] in "0123456789{" else v for k, v in (s.split("=", 1) for s in settings)
    }
    found: dict[str, dict[str, float]] = {}
    for task, cut in TASKS.items():
        rows = []
        for name, drug in DRUGS.items():
            part = cut(chem().MolFromSmiles(drug))
            drawn = list(model.sample(count, prompt=part, seed=1, valid=task == REDRAWN, **chosen).values)
            rows.append(scores(drawn, part))
            print(json.dumps({"task": task, "drug": name, "part": part, **rows[-1]}), file=sys.stderr)
        found[task] = {k: round(float(np.mean([r[k] for r in rows])), 1) for k in rows[0]}
        print(json.dumps({"task": task, **found[task]}), flush=True)
    opened = Run.open(Path(run))
    n = f"{len(DRUGS)} drugs, {count} each"
    save(f"fragment_tasks_{opened.record.family}", rows_of(opened, found, chosen, n))


BENCHMARKS = (Benchmark("fragment_tasks", ("RUN",), 5, main),)
