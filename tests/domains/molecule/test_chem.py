"""Why a text is not a molecule is said in RDKit's words."""

from __future__ import annotations

import pytest

from afresh.domains.molecule.chem import LONGEST, MoleculeError, canonical, molecule

REFUSED = {
    "c1ccccc": "unclosed ring",
    "C(C)(C)(C)(C)C": "Explicit valence for atom # 0 C, 5, is greater than permitted",
    "n1cccc1": "Can't kekulize mol",
    "c1ccc1c": "non-ring atom 4 marked aromatic",
    "Xx": "syntax error",
    "": "empty",
    "CC>>CO": "a reaction",
    "*CC*": "R groups",
    "[R1]CC": "R groups",
    "C" * 100_000: f"at most {LONGEST:,}",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda t: t[:12])
def test_what_is_no_molecule_is_refused_with_the_reason(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MoleculeError, match=REFUSED[text].replace("(", r"\(").replace("#", r"\#")):
        molecule(text)
    assert canonical(text) is None or text.startswith(("*", "C" * 9))
    assert not capfd.readouterr().err  # RDKit's log is not printed


def test_metals_whose_symbols_begin_with_r_and_dative_bonds_are_molecules() -> None:
    assert molecule("[Ru+2]").GetNumAtoms() == 1 and molecule("N->[Pt]").GetNumAtoms() == 2
