"""What objectives for molecules consist of: measures of a molecule, shapes that turn a number into a score, and means.

Measures and shapes are data, so that `molecule_objectives` is a table. RDKit is imported when the first one is used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, Literal

from afresh.domains.molecule.chem import LONGEST, chem, require
from afresh.domains.molecule.pharmacophores import pharmacophores
from afresh.domains.molecule.properties import properties

KEPT = 1_024  # molecules that stay read, so that the terms of a sum share them


class ReadMolecule:
    """A molecule of RDKit, and what several terms ask of it, each computed once."""

    def __init__(self, mol: Any) -> None:
        self.mol = mol
        self._fingerprints: dict[str, Any] = {}

    def fingerprint(self, name: str) -> Any:
        if name not in self._fingerprints:
            self._fingerprints[name] = fingerprints()[name](self.mol)
        return self._fingerprints[name]

    @cached_property
    def elements(self) -> Mapping[str, int]:
        """The number of atoms of each element, hydrogen included."""
        out: Counter[str] = Counter()
        for atom in self.mol.GetAtoms():
            out[atom.GetSymbol()] += 1
            out["H"] += atom.GetTotalNumHs()
        return out


@lru_cache(maxsize=KEPT)
def read(smiles: str) -> ReadMolecule | None:
    """The molecule of a SMILES; None if RDKit cannot read it, or if it has no atoms."""
    found = chem().MolFromSmiles(smiles) if smiles and len(smiles) <= LONGEST else None
    return None if found is None or found.GetNumAtoms() == 0 else ReadMolecule(found)


@cache
def fingerprints() -> Mapping[str, Callable[[Any], Any]]:
    """Functions of a molecule by name.

    ECFP4, ECFP6 and FCFP4 (Rogers and Hahn 2010) and atom pairs up to ten bonds apart (Carhart et al. 1985) are counts
    that are not folded; PHCO are the bits of Gobbi and Poppinger's two-dimensional pharmacophores (1998).
    """
    require()
    from rdkit.Chem import rdFingerprintGenerator as generators

    features = generators.GetMorganFeatureAtomInvGen()
    return {
        "ECFP4": generators.GetMorganGenerator(radius=2).GetSparseCountFingerprint,
        "ECFP6": generators.GetMorganGenerator(radius=3).GetSparseCountFingerprint,
        "FCFP4": generators.GetMorganGenerator(radius=2, atomInvariantsGenerator=features).GetSparseCountFingerprint,
        "AP": generators.GetAtomPairGenerator(maxDistance=10).GetSparseCountFingerprint,
        "PHCO": pharmacophores,
    }


# ------------------------------------------------------------------------------------------------------------ measures

Measure = Callable[[ReadMolecule], float]


@dataclass(frozen=True)
class Number:
    """A number that RDKit computes: one of `afresh.domains.molecule.properties`, or one that is named below."""

    name: str

    def __call__(self, molecule: ReadMolecule) -> float:
        return float(numbers()[self.name](molecule.mol))


@cache
def numbers() -> Mapping[str, Callable[[Any], float]]:
    """Bertz: topological complexity (Bertz 1981). rings: of the smallest set of smallest rings."""
    from rdkit.Chem import GraphDescriptors, rdMolDescriptors

    return {
        **properties(),
        "Bertz": GraphDescriptors.BertzCT,
        "aromatic rings": rdMolDescriptors.CalcNumAromaticRings,
    }


@dataclass(frozen=True)
class Atoms:
    """The number of atoms of an element, or of all elements, hydrogen included."""

    element: str | None = None

    def __call__(self, molecule: ReadMolecule) -> float:
        found = molecule.elements
        return float(sum(found.values()) - found.get("*", 0) if self.element is None else found.get(self.element, 0))


@dataclass(frozen=True)
class Similarity:
    """The Tanimoto similarity to a molecule, 0 to 1."""

    smiles: str
    fingerprint: str = "ECFP4"

    def __call__(self, molecule: ReadMolecule) -> float:
        from rdkit import DataStructs

        return float(
            DataStructs.TanimotoSimilarity(
                target(self.smiles, self.fingerprint), molecule.fingerprint(self.fingerprint)
            )
        )


@lru_cache(maxsize=KEPT)
def target(smiles: str, fingerprint: str) -> Any:
    found = read(smiles)
    assert found is not None, smiles
    return found.fingerprint(fingerprint)


@dataclass(frozen=True)
class Contains:
    """1 if the molecule has a substructure, else 0."""

    smarts: str

    def __call__(self, molecule: ReadMolecule) -> float:
        return float(molecule.mol.HasSubstructMatch(pattern(self.smarts)))


@dataclass(frozen=True)
class Lacks:
    """1 if the molecule does not have a substructure, else 0."""

    smarts: str

    def __call__(self, molecule: ReadMolecule) -> float:
        return float(not molecule.mol.HasSubstructMatch(pattern(self.smarts)))


@lru_cache(maxsize=KEPT)
def pattern(smarts: str) -> Any:
    """The pattern of a SMARTS, or None if RDKit cannot read it."""
    return chem().MolFromSmarts(smarts)


# -------------------------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class NearestMolecule:
    """1 at a value, and less away from it, as a Gaussian.

    `value` may be a SMILES: then it is the value of that molecule. `side`: "at least" and "at most" score 1 above and
    below the value as well.
    """

    value: float | str
    width: float
    side: Literal["both", "at least", "at most"] = "both"

    def __call__(self, x: float, measure: Measure) -> float:
        away = x - (self.value if isinstance(self.value, float | int) else of_molecule(measure, self.value))
        if (self.side == "at least" and away > 0) or (self.side == "at most" and away < 0):
            return 1.0
        return math.exp(-0.5 * (away / self.width) ** 2)


@lru_cache(maxsize=KEPT)
def of_molecule(measure: Measure, smiles: str) -> float:
    found = read(smiles)
    assert found is not None, smiles
    return measure(found)


@dataclass(frozen=True)
class UpTo:
    """A share of a value, at most 1."""

    value: float

    def __call__(self, x: float, measure: Measure) -> float:
        return min(1.0, x / self.value)


@dataclass(frozen=True)
class ObjectiveTerm:
    measure: Measure
    shape: NearestMolecule | UpTo

    def __call__(self, molecule: ReadMolecule) -> float:
        return self.shape(self.measure(molecule), self.measure)


@dataclass(frozen=True)
class MoleculeObjective:
    """The mean of terms, 0 to 1, as in GuacaMol (Brown et al. 2019). The geometric mean is 0 if one of them is."""

    mean: Literal["geometric", "arithmetic"]
    terms: tuple[Measure, ...]

    def __call__(self, molecule: ReadMolecule) -> float:
        values: Sequence[float] = [term(molecule) for term in self.terms]
        if self.mean == "arithmetic":
            return sum(values) / len(values)
        return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
