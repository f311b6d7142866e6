"""Molecules as records of tokens: augmentation, unknown tokens and an extended vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from afresh.core import Item, UserError
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.encoder import SPARE, MoleculeEncoder
from afresh.domains.molecule.modality import MODALITY, MoleculeOptions
from tests.heard import heard

SMILES = ["CCOc1ccccc1", "OCc1ccncc1", "CC(=O)Nc1ccc(F)cc1", "C1CCCCC1N", "CCS(=O)(=O)c1ccccc1", "c1ccc2ccccc2c1"]
ITEMS = [Item(canonical(s), f"row {i}") for i, s in enumerate(SMILES)]


def fitted(**options: object) -> MoleculeEncoder:
    return MODALITY.fit(ITEMS, MoleculeOptions(**options))


@pytest.mark.parametrize("form", ["smiles", "selfies", "fragments"])
def test_rewritten_batches_hold_the_same_molecules(form: str) -> None:
    encoder = fitted(form=form, randomise=1.0)
    found = encoder.encode(ITEMS)
    assert found.vary is not None
    plain = Loader(replace(found, vary=None), encoder.space, Rng(0), 3).batch(0, 12)
    varied = Loader(found, encoder.space, Rng(0), 3).batch(0, 12)
    assert encoder.decode(varied.x) == encoder.decode(plain.x)
    assert not torch.equal(varied.x, plain.x)
    assert varied.mask is not None
    for row, mask in zip(varied.x.tolist(), varied.mask.tolist(), strict=True):
        count = sum(mask)
        assert all(mask[:count]) and row[count] == 0 and 0 not in row[1:count]
    again = Loader(found, encoder.space, Rng(0), 3).batch(4, 4)  # a draw depends on its number alone
    assert encoder.decode(again.x) == encoder.decode(varied.x[4:8])
    assert [encoder.text(r) for r in again.x.tolist()] == [encoder.text(r) for r in varied.x[4:8].tolist()]


def test_tokens_that_training_lacks_are_named() -> None:
    with heard() as said:
        found = fitted().encode([Item("C[Se]C", "row 7")])
    assert any("[Se] (1, first in row 7)" in str(e.text) for e in said)
    assert 1 in found.x.tolist()


def test_a_vocabulary_is_extended_without_a_change_of_its_size() -> None:
    encoder = fitted()
    other = encoder.encoder_for([Item("C[Se]C")], None, 0)
    assert other.space.vocab == encoder.space.vocab and other.added == ("[Se]",)
    found = other.encode([Item("C[Se]C")])
    assert other.decode(found.x) == ["C[Se]C"] and 3 not in other.space.special.values()
    many = [Item(f"[{n}CH3]C") for n in range(15, 17 + SPARE)]
    with pytest.raises(UserError, match="Train a new model"):
        encoder.encoder_for(many, None, 0)


def test_what_is_no_molecule_is_decoded_as_it_is() -> None:
    encoder = fitted()
    ids = [encoder.ids[t] for t in ("c", "1", "c")]
    assert encoder.decode(torch.tensor([ids])) == ["c1c"] and not encoder.valid("c1c")
    assert encoder.decode(torch.tensor([[encoder.ids["O"], encoder.ids["C"], 0, 5]])) == ["CO"]


def test_offspring_fit_in_the_context() -> None:
    encoder = replace(fitted(), context=16)
    made = encoder.offspring([(a, b) for a in SMILES for b in SMILES] * 4, 3)
    assert made and max(len(encoder.tokenised(m)) for m in made) == 15
