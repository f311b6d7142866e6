"""Built-in rewards for molecules, which are SMILES. An item that is not a valid molecule has the reward 0.

Rewards are therefore such that 0 is the worst value: `sa` is the ease of synthesis, and logP and weight can have a
target, which is better than a minus sign for making them small. The terms of a sum share the molecules they have read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from afresh.core import UserError
from afresh.domains.molecule.chem import MoleculeError, molecule, require
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.measures import (
    Contains,
    Measure,
    NearestMolecule,
    Number,
    ObjectiveTerm,
    Similarity,
    pattern,
    read,
)
from afresh.domains.molecule.objectives import OBJECTIVES
from afresh.engine.alignment.rewards.reward import Builtin, Context, Request, Reward, ScoringError, options

HARDEST, EASIEST = 10.0, 1.0  # SA scores
LOG_P_WIDTH, WEIGHT_WIDTH = 1.0, 50.0  # of the Gaussians at a target; g/mol


def each(measure: Measure) -> Reward:
    """The reward of a function of a molecule; 0 for an item that is not valid."""
    require()

    def score(items: Sequence[str], requests: Sequence[Request]) -> list[float]:
        out = []
        for i, item in enumerate(items):
            if not isinstance(item, str):
                raise ScoringError("it is not a molecule, which is a SMILES.", i)
            found = read(item)
            out.append(0.0 if found is None else measure(found))
        return out

    return Reward("", score, MOLECULE)


def plain(name: str, measure: Measure) -> Callable[[str | None, Context], Reward]:
    """The function that makes a reward without options."""

    def make(argument: str | None, context: Context) -> Reward:
        options(name, argument, {})
        return each(measure)

    return make


def at(name: str, width: float, argument: str | None, context: Context) -> Reward:
    """A number of RDKit as it is, or, with a target, 1 at the target and less away from it."""
    measure = Number(name)
    if argument is None:
        return each(measure)
    try:
        value = float(argument)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"The reward {name.lower()}: {argument!r} is not a number. Write {name.lower()} alone, or with the value "
            f"to reach, as in {name.lower()}:{width * 3:g}."
        )
    return each(ObjectiveTerm(measure, NearestMolecule(value, width)))


def ease(argument: str | None, context: Context) -> Reward:
    """The ease of synthesis: 1 for an SA score of 1 (easy; Ertl and Schuffenhauer 2009), 0 for one of 10."""
    options("sa", argument, {})
    score = Number("SA")
    return each(lambda found: (HARDEST - score(found)) / (HARDEST - EASIEST))


def similar(argument: str | None, context: Context) -> Reward:
    """The Tanimoto similarity of counted ECFP4 fingerprints to a molecule, 0 to 1."""
    if not argument:
        raise UserError("The reward similarity needs a molecule after a colon, as in 'similarity:CC(=O)Oc1ccccc1'.")
    try:
        molecule(argument)
    except MoleculeError as e:
        raise UserError(f"The reward similarity: {argument!r} is not a molecule ({e}). Correct the SMILES.") from None
    return each(Similarity(argument))


def substructure(argument: str | None, context: Context) -> Reward:
    """1 if a molecule has a substructure, else 0."""
    if not argument:
        raise UserError("The reward substructure needs a SMARTS after a colon, as in 'substructure:c1ccncc1'.")
    require()
    if pattern(argument) is None:
        raise UserError(f"The reward substructure: {argument!r} is not a SMARTS that RDKit reads. Correct it.")
    return each(Contains(argument))


PMO = {
    "albuterol_similarity": "similarity to albuterol by FCFP4",
    "amlodipine_mpo": "similarity to amlodipine, with three rings",
    "celecoxib_rediscovery": "similarity to celecoxib by ECFP4",
    "deco_hop": "a scaffold kept with other decorations",
    "fexofenadine_mpo": "similarity to fexofenadine, with TPSA above 90 and logP below 4",
    "isomers_c7h8n2o2": "formula C7H8N2O2",
    "isomers_c9h10n2o2pf2cl": "formula C9H10N2O2PF2Cl",
    "median1": "similarity to both camphor and menthol",
    "median2": "similarity to both tadalafil and sildenafil",
    "mestranol_similarity": "similarity to mestranol by atom pairs",
    "osimertinib_mpo": "similarity to osimertinib, but not equal, with TPSA above 100 and logP below 1",
    "perindopril_mpo": "similarity to perindopril, with two aromatic rings",
    "ranolazine_mpo": "similarity to ranolazine, with TPSA above 95, logP above 7 and one fluorine",
    "scaffold_hop": "decorations kept on another scaffold",
    "sitagliptin_mpo": "formula, logP and TPSA of sitagliptin without similarity to it",
    "thiothixene_rediscovery": "similarity to thiothixene by ECFP4",
    "troglitazone_rediscovery": "similarity to troglitazone by ECFP4",
    "valsartan_smarts": "a part of valsartan with the properties of sitagliptin",
    "zaleplon_mpo": "similarity to zaleplon, with formula C19H17N3O2",
}

MOLECULES = {
    "qed": Builtin(plain("qed", OBJECTIVES["qed"]), "likeness to drugs (QED), 0 to 1"),
    "logp": Builtin(
        partial(at, "logP", LOG_P_WIDTH), "logP; logp:TARGET is 1 at that value and less away, with a width of 1"
    ),
    "weight": Builtin(
        partial(at, "weight", WEIGHT_WIDTH),
        "g/mol; weight:TARGET is 1 at that value and less away, with a width of 50",
    ),
    "sa": Builtin(ease, "ease of synthesis by the SA score, 1 (easy) to 0"),
    "similarity": Builtin(similar, "similarity:SMILES, Tanimoto similarity to a molecule by ECFP4, 0 to 1"),
    "substructure": Builtin(substructure, "substructure:SMARTS is 1 if the molecule has it, else 0"),
    **{name: Builtin(plain(name, OBJECTIVES[name]), f"{line}, 0 to 1") for name, line in PMO.items()},
}
REWARDS = {MOLECULE.name: MOLECULES}
