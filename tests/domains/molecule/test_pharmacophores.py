"""The bits are those of RDKit's own function."""

from __future__ import annotations

import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem.Pharm2D import Generate, Gobbi_Pharm2D

from afresh.domains.molecule.pharmacophores import pharmacophores

MOLECULES = (
    "C",
    "CC.O",
    "[Na+].[Cl-]",
    "CCCOc1cc2ncnc(Nc3ccc4ncsc4c3)c2cc1S(=O)(=O)C(C)(C)C",
    "CN1CCC23C4C1CC5=C2C(=C(C=C5)O)OC3C(C=C4)O",
    "OC1C(O)C(O)C(O)C(O)C1O.CCCCCCCCCCCCCCCCCC(=O)NCCCCCCCCCCCCCCCN",
    "CC(C)(C(=O)O)c1ccc(cc1)C(O)CCCN2CCC(CC2)C(O)(c3ccccc3)c4ccccc4",
    "C[Si](C)(C)CCB(O)O",
)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_bits_are_those_of_rdkit(smiles: str) -> None:
    mol = Chem.MolFromSmiles(smiles)
    known = Generate.Gen2DFingerprint(mol, Gobbi_Pharm2D.factory)
    assert list(pharmacophores(mol).GetOnBits()) == list(known.GetOnBits())
