"""What a molecule is built on stays in it."""

from __future__ import annotations

import pytest

from afresh.core import UserError
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.parts import beginning, contains, varied

PHENYL = "c1ccccc1*"


@pytest.mark.parametrize(
    ("form", "part", "ends"),
    [
        ("smiles", PHENYL, ("C", "OC(F)F")),
        ("smiles", "c1ccc2[nH]ccc2c1", ("CC", "N")),
        ("fragments", PHENYL, ("C%10", "OC%10")),
        ("fragments", "*c1ccc(*)cc1", ("C%10.N%11", "C%10C%11")),
        ("fragments", "c1ccccc1*.C1CCNCC1*", ("C%10C%11",)),
    ],
)
def test_what_follows_a_part_leaves_it_as_it_is(form: str, part: str, ends: tuple[str, ...]) -> None:
    for seed in range(5):
        begun = beginning(form, part, seed)
        assert begun == beginning(form, part, seed)
        for end in ends:
            whole = canonical(begun + end)
            assert whole is not None and contains(whole, part)


def test_two_pieces_have_to_be_linked() -> None:
    part = "c1ccccc1*.C1CCNCC1*"
    apart = canonical(beginning("fragments", part, 0) + "C%10.C%11")
    assert apart is not None and not contains(apart, part)


@pytest.mark.parametrize(
    ("form", "part", "message"),
    [
        ("smiles", "*c1ccc(*)cc1", "2 attachment points.*data.form=fragments"),
        ("selfies", PHENYL, "data.form=fragments"),
        ("fragments", "c1ccc", "unclosed ring"),
        ("fragments", "", "it is empty"),
        ("fragments", "C*C", "exactly one bond"),
        ("fragments", "c1ccccc1.CC*", "needs an attachment point"),
        ("fragments", "FC(F)(F)F", "no atom with a hydrogen"),
    ],
)
def test_parts_that_cannot_be_built_on_are_refused(form: str, part: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        beginning(form, part, 0)


@pytest.mark.parametrize("form", ["smiles", "selfies", "fragments"])
def test_the_strength_is_the_share_that_is_left_out(form: str) -> None:
    from afresh.domains.molecule.writing import WRITINGS

    smiles, writing = "CCOc1cccc(C(=O)Nc2ccn(Cc3ccccn3)n2)c1", WRITINGS[form]
    lengths = [len(writing.split(varied(form, smiles, s, 3))) for s in (0.001, 0.3, 0.6, 1.0)]
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] == 0
    assert canonical(writing.read(varied(form, smiles, 0.001, 3))) == canonical(smiles)
    with pytest.raises(UserError, match="not a molecule"):
        varied(form, "c1cc", 0.5, 0)
