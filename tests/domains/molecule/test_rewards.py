"""Rewards for molecules: closed forms, invalid items, objectives of PMO, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

pytest.importorskip("rdkit")

from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors

from afresh.core import UserError
from afresh.domains.molecule import measures, objectives
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.objectives import OBJECTIVES
from afresh.domains.molecule.rewards import MOLECULES
from afresh.engine.alignment.rewards.reward import Context, Scorer
from afresh.engine.alignment.rewards.reward_expression import build

ASPIRIN, PHENOL, ETHANOL = "CC(=O)Oc1ccccc1C(=O)O", "Oc1ccccc1", "CCO"
INVALID = ["C1CC", "c1cc1", "C(C)(C)(C)(C)C", "", "not a molecule", "C" * 6_000]


def scores(text: str, molecules: Sequence[str]) -> list[float]:
    reward = build(text, Context(MOLECULE, workers=1))
    try:
        return [float(v) for v in Scorer(reward)(molecules)]
    finally:
        reward.close()


def log_p(smiles: str) -> float:
    return float(Crippen.MolLogP(Chem.MolFromSmiles(smiles)))  # type: ignore[attr-defined]


def mass(smiles: str) -> float:
    return float(Descriptors.MolWt(Chem.MolFromSmiles(smiles)))  # type: ignore[attr-defined]


def test_numbers_are_those_of_rdkit() -> None:
    mol = Chem.MolFromSmiles(ASPIRIN)
    assert scores("qed", [ASPIRIN]) == [QED.qed(mol)]
    assert scores("logp", [ASPIRIN]) == [log_p(ASPIRIN)]
    assert scores("weight", [ASPIRIN]) == [mass(ASPIRIN)]


def test_a_target_is_the_best_value_and_a_width_away_it_is_the_gaussian() -> None:
    value = log_p(ASPIRIN)
    assert scores(f"logp:{value}", [ASPIRIN]) == [1.0]
    assert scores(f"logp:{value - 1}", [ASPIRIN]) == pytest.approx([math.exp(-0.5)])
    assert scores(f"weight:{mass(ASPIRIN) + 100}", [ASPIRIN]) == pytest.approx([math.exp(-2)])


def test_what_is_easier_to_make_has_the_higher_reward() -> None:
    easy, hard = scores("sa", [ETHANOL, "C1CC2(C1)C1C3OC3C2C1(F)[C@@H]1NC1=O"])
    assert 0 < hard < easy <= 1


def test_similarity_and_substructure() -> None:
    same, other = scores(f"similarity:{ASPIRIN}", ["O=C(O)c1ccccc1OC(C)=O", ETHANOL])
    assert same == 1 and 0 <= other < 0.3
    assert scores("substructure:[OX2H]", [PHENOL, "c1ccccc1"]) == [1, 0]
    assert scores("qed - substructure:[OX2H]", [PHENOL]) == pytest.approx([scores("qed", [PHENOL])[0] - 1])


@pytest.mark.parametrize("name", MOLECULES)
def test_an_invalid_molecule_has_the_reward_0(name: str) -> None:
    argument = {"similarity": f":{ASPIRIN}", "substructure": ":[#6]"}.get(name, "")
    assert scores(name + argument, INVALID) == [0] * len(INVALID)


def test_a_molecule_is_read_once_for_all_terms_of_a_sum() -> None:
    measures.read.cache_clear()
    scores(f"qed + 0.5*sa + logp:2 - 0.1*substructure:[#9] + similarity:{PHENOL}", [ASPIRIN, ETHANOL])
    assert measures.read.cache_info().misses == 3  # and phenol


# ------------------------------------------------------------------------------------------------------------ PMO


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n.endswith(("_rediscovery", "_similarity"))])
def test_the_molecule_to_find_has_the_reward_1(name: str) -> None:
    wanted = vars(objectives)[name.partition("_")[0].upper()]
    assert scores(name, [wanted]) == [1.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_between_0_and_1(name: str) -> None:
    targets = [v for k, v in vars(objectives).items() if k.isupper() and isinstance(v, str)]
    values = scores(name, [t for t in targets if Chem.MolFromSmiles(t) is not None] + ["C", "CC.O", "[Na+].[Cl-]"])
    assert all(0 <= v <= 1 for v in values)


def test_a_formula_counts_hydrogen_and_every_atom() -> None:
    isomer = "CN(C)c1ccc[nH]1"  # C6H10N2
    counts = {"C": 6, "H": 10, "N": 2, "O": 0}
    wanted = {"C": 7, "H": 8, "N": 2, "O": 2}
    logs = [-0.5 * (counts[e] - n) ** 2 for e, n in wanted.items()] + [-0.5 * ((18 - 19) / 2) ** 2]
    assert scores("isomers_c7h8n2o2", [isomer]) == pytest.approx([math.exp(sum(logs) / 5)])
    assert scores("isomers_c7h8n2o2", ["COc1cnc(C(C)=O)nc1", "COC(=O)c1ccnc(C)n1"])[1] == pytest.approx(1.0)


def test_a_part_that_is_missing_makes_the_geometric_mean_0() -> None:
    part = objectives.VALSARTAN_PART
    without, with_part = scores("valsartan_smarts", [objectives.SITAGLIPTIN, part])
    assert without == 0 < with_part


def test_hops_reward_what_is_kept_and_what_is_left() -> None:
    start = objectives.HOP
    assert scores("deco_hop", [start]) == pytest.approx([0.5])  # likeness and scaffold, but both decorations
    assert scores("scaffold_hop", [start]) == pytest.approx([2 / 3])  # likeness and decorations, but the scaffold


# -------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("similarity", "needs a molecule after a colon"),
        ("similarity:C1CC", "not a molecule"),
        ("similarity:CC>>CO", "a reaction"),
        ("substructure:", "needs a SMARTS"),
        ("substructure:[#6", "not a SMARTS"),
        ("logp:high", "not a number"),
        ("weight:nan", "not a number"),
        ("qed:1", "does not accept the option"),
        ("zaleplon", "Did you mean zaleplon_mpo"),
        ("length", "length is for texts, not for molecules"),
    ],
)
def test_refused(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(words, Context(MOLECULE))
