"""Structural alerts: what chemists avoid has a word, and what they make has none."""

from __future__ import annotations

import pytest

from afresh.domains.molecule.alerts import alerts


@pytest.mark.parametrize(
    ("smiles", "words"),
    [
        ("C1CNNNN1", "four nitrogen atoms in a chain"),
        ("CN(C)NN(C)NC", "four nitrogen atoms in a chain"),
        ("CNNC", "hydrazine"),
        ("CC(C)OOC", "peroxide"),
        ("O=C1C=CC(=O)C=C1", "quinone"),
    ],
)
def test_what_is_avoided_has_a_word(smiles: str, words: str) -> None:
    (found,) = alerts([smiles])
    assert words in found and "_" not in found


def test_what_is_made_has_none() -> None:
    caffeine, tetrazole, benzotriazole = "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "Cc1nn[nH]n1", "c1ccc2[nH]nnc2c1"
    assert alerts([caffeine, tetrazole, benzotriazole, "CCO", "not a molecule"]) == [""] * 5
