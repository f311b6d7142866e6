"""Metrics of molecules on sets whose values are known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from afresh.domains.molecule import metrics as m
from afresh.domains.molecule.filters import passes
from afresh.domains.molecule.kind import diversity, features, near_duplicates

SETS = ["CCO", "c1ccccc1O", "CC(=O)Nc1ccc(F)cc1", "O=C(c1ccccc1)N1CCCC1", "C1CCC(C2CCNCC2)CC1"]


def test_tanimoto_is_the_share_of_common_bits() -> None:
    x = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    y = np.array([[1.0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert np.allclose(m.tanimoto(x, y), [[1 / 3, 1, 0], [0, 0, 1]])
    assert m.nearest(x, y).tolist() == [1.0, 1.0]


def test_tanimoto_equals_that_of_rdkit() -> None:
    from rdkit import DataStructs

    from afresh.domains.molecule.kind import fingerprint

    mine = m.tanimoto(features(SETS), features(SETS))
    theirs = [DataStructs.BulkTanimotoSimilarity(fingerprint(a), [fingerprint(b) for b in SETS]) for a in SETS]
    assert np.allclose(mine, theirs, atol=1e-6)
    assert m.internal_diversity(features(SETS)).value == pytest.approx(1 - mine.mean())
    pairs = mine[~np.eye(len(SETS), dtype=bool)]
    assert diversity(SETS) == pytest.approx(1 - pairs.mean(), abs=1e-6)
    assert m.internal_diversity(features(SETS), 2).value == pytest.approx(1 - np.sqrt((mine**2).mean(1)).mean())


def test_counts_are_compared_by_their_cosine() -> None:
    assert m.cosine(Counter("aab"), Counter("aab")) == pytest.approx(1)
    assert m.cosine(Counter("a"), Counter("b")) == 0 and np.isnan(m.cosine(Counter(), Counter("a")))
    assert m.cosine(Counter("ab"), Counter("a")) == pytest.approx(2**-0.5)
    found = m.Molecules(SETS)
    assert [len(s) for s in found.scaffolds] == [0, 0, 0, 1, 1]  # two rings or more
    assert all(found.fragments)


def test_distances_of_properties_are_in_their_units() -> None:
    x = m.Molecules(SETS).numbers("weight")
    assert m.distance(x, x + 3).value == pytest.approx(3)


@pytest.mark.parametrize(
    ("smiles", "good"),
    [
        ("CC(=O)Nc1ccc(F)cc1", True),
        ("CC[N+](C)(C)C", False),  # charged
        ("C[Si](C)C", False),  # a rare element
        ("C1CCCCCCC1", False),  # a large ring
        ("CC=O", False),  # an aldehyde, in MCF
        ("O=C1C=CC(=O)C=C1", False),  # a quinone, in PAINS
    ],
)
def test_filters(smiles: str, good: bool) -> None:
    assert passes(m.chem().MolFromSmiles(smiles)) is good


def test_near_duplicates_differ_in_details_only() -> None:
    found = near_duplicates(["C[C@H](N)C(=O)O", "CCO", "CC(N)C(=O)O", "CC([NH3+])C(=O)[O-]", "CCO.Cl"])
    assert [(p.first, p.second) for p in found] == [(0, 2), (0, 3), (1, 4)]
