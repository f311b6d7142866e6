"""How salts, charges, stereo and isotopes are treated, and which molecules are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from afresh.core.solver_progress import blocks
from afresh.domains.molecule.chem import MoleculeError, chem, molecule, surviving
from afresh.domains.molecule.properties import numbers_of

BLOCK = 512  # molecules between two reports of progress
Mixtures = Literal["keep", "largest", "refuse"]


@dataclass(frozen=True)
class Standard:
    """`mixtures`: of molecules with several parts, such as salts. Otherwise whether something is removed."""

    mixtures: Mixtures = "keep"
    neutralise: bool = False
    stereo: bool = True
    isotopes: bool = True
    cleanup: bool = False
    max_atoms: int = 100


@dataclass(frozen=True)
class StandardMolecule:
    """A molecule as it is learnt, what it has that a standard could remove, its scaffold and its properties."""

    smiles: str
    traits: tuple[str, ...]
    scaffold: str | None
    numbers: dict[str, float]


@cache
def _tools() -> Any:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    return rdMolStandardize


def traits_of(smiles: str, found: Any) -> tuple[str, ...]:
    out = []
    if "." in smiles:
        out.append("mixtures or salts")
    if "[" in smiles and any(a.GetFormalCharge() for a in found.GetAtoms()):
        out.append("charged atoms")
    if "@" in smiles or "/" in smiles or "\\" in smiles:
        out.append("stereo")
    if "[" in smiles and any(a.GetIsotope() for a in found.GetAtoms()):
        out.append("isotopes")
    return tuple(out)


def standardised(text: str, standard: Standard, with_scaffold: bool, wanted: tuple[str, ...]) -> StandardMolecule:
    """The molecule of a SMILES in the standard. Raises MoleculeError with the reason why it is refused."""
    library = chem()
    found = molecule(text)
    smiles: str = library.MolToSmiles(found)
    traits = traits_of(smiles, found)
    changed = standard.cleanup
    if standard.cleanup:
        found = _tools().Cleanup(found)
    if "mixtures or salts" in traits and standard.mixtures != "keep":
        if standard.mixtures == "refuse":
            raise MoleculeError("a mixture or a salt, which `data.mixtures=refuse` leaves out")
        found, changed = _tools().LargestFragmentChooser().choose(found), True
    if standard.neutralise and "charged atoms" in traits:
        found, changed = _tools().Uncharger().uncharge(found), True
    if not standard.isotopes and "isotopes" in traits:
        changed = True
        for atom in found.GetAtoms():
            atom.SetIsotope(0)
    if not standard.stereo and "stereo" in traits:
        changed = True
        library.RemoveStereochemistry(found)
    heavy = found.GetNumHeavyAtoms()
    if heavy > standard.max_atoms:
        raise MoleculeError(f"{heavy} heavy atoms, but at most {standard.max_atoms} are learnt: `data.max_atoms`")
    if heavy == 0:
        raise MoleculeError("no heavy atom")
    if changed:
        found = library.MolFromSmiles(library.MolToSmiles(found))
        if found is None:
            raise MoleculeError("what remains of it is not a molecule that RDKit reads")
        smiles = library.MolToSmiles(found)
    scaffold = scaffold_of(found) if with_scaffold else None
    return StandardMolecule(smiles, traits, scaffold, numbers_of(found, wanted) if wanted else {})


def scaffold_of(found: Any) -> str:
    """The Bemis-Murcko scaffold as canonical SMILES; empty without rings (Bemis and Murcko 1996)."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    text: str = chem().MolToSmiles(MurckoScaffold.GetScaffoldForMol(found), isomericSmiles=False)
    return text


def read_all(
    texts: Sequence[str], standard: Standard, with_scaffold: bool, wanted: tuple[str, ...]
) -> list[StandardMolecule | MoleculeError]:
    """`standardised` of every text, or the error. Threads would not help: RDKit keeps the interpreter's lock."""

    def one(text: str) -> StandardMolecule | MoleculeError:
        try:
            with surviving():
                return standardised(text, standard, with_scaffold, wanted)
        except MoleculeError as error:
            return error

    parts = [texts[i : i + BLOCK] for i in range(0, len(texts), BLOCK)]
    return [one(text) for part in blocks(parts, "reading molecules") for text in part]


def describe_traits(found: Sequence[StandardMolecule], standard: Standard) -> list[str]:
    """A line on each trait that molecules have: how many, what was done with them, and which option decides."""
    counts = Counter(t for r in found for t in r.traits)
    ways = {
        "mixtures or salts": (standard.mixtures == "keep", "only the largest part is kept", "data.mixtures=largest"),
        "charged atoms": (not standard.neutralise, "neutralised where possible", "data.neutralise=true"),
        "stereo": (standard.stereo, "removed", "data.stereo=false"),
        "isotopes": (standard.isotopes, "removed", "data.isotopes=false"),
    }
    out = []
    for trait, (kept, done, option) in ways.items():
        if counts[trait]:
            what = f"kept (`{option}` changes that)" if kept else done
            out.append(f"{counts[trait]:,} of {len(found):,} molecules have {trait}: {what}")
    return out
