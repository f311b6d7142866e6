"""Every way to write a molecule can be read, by afresh and by the packages that defined it."""

from __future__ import annotations

import pytest

from afresh.domains.molecule import fragments
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.writing import WRITINGS, split_selfies, split_smiles, vocabulary

MOLECULES = [
    "CCOc1cccc(C(=O)Nc2ccn(Cc3ccccn3)n2)c1",
    "C[C@]1(c2ccccc2)CC[C@H](O)CC1",
    "O=C(O)/C=C/c1ccccc1",
    "O=C([O-])c1ccccc1.[Na+]",
    "C[C@@H](N)C(=O)O",
    "BrCCCl",
    "[2H]C([2H])O",
]


@pytest.mark.parametrize("form", WRITINGS)
@pytest.mark.parametrize("text", MOLECULES)
def test_a_molecule_survives_every_writing(form: str, text: str) -> None:
    smiles, writing = canonical(text), WRITINGS[form]
    assert smiles is not None
    written = writing.write(smiles)
    assert canonical(writing.read(written)) == smiles
    assert "".join(writing.split(written)) == written
    for seed in range(8):
        other = writing.vary(smiles, seed)
        assert other == writing.vary(smiles, seed) and canonical(writing.read(other)) == smiles


def test_random_writings_differ() -> None:
    assert len({WRITINGS[f].vary(MOLECULES[0], seed) for f in WRITINGS for seed in range(8)}) > 16


def test_tokens_are_atoms_bonds_and_closures() -> None:
    assert split_smiles("BrC(Cl)=[13CH-]%12") == ["Br", "C", "(", "Cl", ")", "=", "[13CH-]", "%12"]
    assert split_selfies("[C][=C][Branch1]") == ["[C]", "[=C]", "[Branch1]"]


def test_fragments_are_cut_at_rings_and_stay_readable() -> None:
    assert fragments.write("OCc1ccccc1") == "OC%10.c1%10ccccc1"
    assert canonical("c1%10ccccc1.C%10O") == "OCc1ccccc1"
    assert fragments.write("CCCC") == "CCCC"  # nothing to cut


@pytest.mark.parametrize(
    ("text", "smiles"),
    [
        ("c1%10ccccc1.C%10O", "OCc1ccccc1"),  # nothing to mend
        ("c1%10ccccc1%11.C%10O", "OCc1ccccc1"),  # a closure that nothing answers
        ("c1ccn%10c1CO", "OCc1ccc[nH]1"),  # of an atom that needs the hydrogen to be aromatic
        ("c1%10ccccc1.C%10O%11.c1cc(%11.N%12", "OCc1ccccc1"),  # a fragment that cannot be read, and a piece of its own
        ("c1%10ccccc1.C%10O.c1%10cccnc1", "OCc1ccccc1"),  # three of a kind
        ("%10C.CC=%11", "CC"),
        ("[Na+].[Cl-]", "[Cl-].[Na+]"),  # a salt is a molecule as it is
    ],
)
def test_fragments_that_do_not_fit_are_mended(text: str, smiles: str) -> None:
    assert canonical(fragments.read(text)) == canonical(smiles)


@pytest.mark.parametrize("text", ["", "c1cc", "C(=O)(=O)(=O)C", "%10", "."])
def test_what_cannot_be_mended_is_returned_unchanged(text: str) -> None:
    assert fragments.read(text) == text


@pytest.mark.parametrize("form", WRITINGS)
def test_the_vocabulary_covers_random_writings_and_mirrored_configurations(form: str) -> None:
    smiles = [s for s in map(canonical, MOLECULES) if s]
    words, writing = set(vocabulary(form, smiles)), WRITINGS[form]
    assert {t for s in smiles for t in writing.split(writing.vary(s, 0))} <= words
    mirrored = {t.replace("@@", "@") for t in words if "@@" in t} | {t for t in words if "@" in t and "@@" not in t}
    assert mirrored <= words and {t.replace("@", "@@") for t in mirrored} <= words
