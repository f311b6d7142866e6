"""Offspring of molecules: valid, canonical, of one piece, and the same for the same seed."""

from __future__ import annotations

import itertools

import pytest

Chem = pytest.importorskip("rdkit.Chem")

from afresh.domains.molecule.chem import canonical, molecule  # noqa: E402
from afresh.domains.molecule.recombine import LARGEST_RING, offspring  # noqa: E402

PARENTS = (
    "CC(=O)Nc1ccc(O)cc1",
    "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "C[C@H](N)C(=O)N1CCC[C@H]1c1ncc[nH]1",
    "O=S(=O)(NC1CCOCC1)c1cccs1",
    "C[NH+](C)CC#Cc1ccc2c(c1)OCO2",
)


def children(seed: int) -> list[str]:
    return offspring([*itertools.product(PARENTS, PARENTS)] * 8, seed)


def test_offspring_are_valid_molecules_of_one_piece_in_their_canonical_writing() -> None:
    made = children(0)
    assert len(made) > 150
    for smiles in made:
        found = molecule(smiles)  # raises if it is not one
        assert canonical(smiles) == smiles and "." not in smiles
        assert max(map(len, found.GetRingInfo().AtomRings()), default=0) <= LARGEST_RING


def test_sulfur_with_more_bonds_than_usual_has_no_hydrogen() -> None:
    assert not [smiles for seed in range(5) for smiles in children(seed) if "[SH" in smiles]


def test_offspring_depend_on_the_seed_alone_and_differ_from_their_parents() -> None:
    made = children(1)
    assert made == children(1) != children(2)
    assert len(set(made) - set(PARENTS)) > 0.8 * len(set(made)) > 80


def test_parts_of_both_parents_are_kept() -> None:
    """A child of a sulfonamide and an alkyne often has both."""
    made = offspring([("CCS(=O)(=O)N", "C#CCCO")] * 200, 3)
    assert any("S(=O)" in m.replace("(=O)(=O)", "(=O)") and "#" in m for m in made)


def test_what_cannot_be_recombined_has_no_offspring() -> None:
    assert offspring([("no molecule", "CCO"), ("CCO", "")], 0) == []
