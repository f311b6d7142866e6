"""Numbers that RDKit computes of a molecule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from afresh.domains.molecule.chem import require

Property = Literal["logP", "QED", "weight", "SA", "TPSA", "rings", "rotatable"]


@cache
def properties() -> Mapping[str, Callable[[Any], float]]:
    """Functions of a molecule by name.

    logP: of Wildman and Crippen 1999. QED: quantitative estimate of drug-likeness (Bickerton et al. 2012), 0 to 1. SA:
    synthetic accessibility (Ertl and Schuffenhauer 2009), 1 (easy) to 10. weight: in g/mol. TPSA: polar surface in
    square angstrom. rings, rotatable: numbers of rings and of rotatable bonds.
    """
    require()
    from rdkit.Chem import QED, Descriptors, rdMolDescriptors
    from rdkit.Contrib.SA_Score import sascorer

    return {
        "logP": lambda m: rdMolDescriptors.CalcCrippenDescriptors(m)[0],
        "QED": QED.qed,
        "weight": Descriptors.MolWt,  # type: ignore[attr-defined]
        "SA": sascorer.calculateScore,
        "TPSA": rdMolDescriptors.CalcTPSA,
        "rings": lambda m: float(rdMolDescriptors.CalcNumRings(m)),
        "rotatable": lambda m: float(rdMolDescriptors.CalcNumRotatableBonds(m)),
    }


def numbers_of(found: Any, names: tuple[str, ...]) -> dict[str, float]:
    """The properties of a molecule by name."""
    return {name: float(properties()[name](found)) for name in names}
