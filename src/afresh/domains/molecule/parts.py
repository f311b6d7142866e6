"""The beginning of a molecule's tokens, from a part that it has to contain or from a molecule that is varied.

A scaffold or fragment is written in full, with ring closures or a last atom at which the molecule goes on. Whatever a
model writes after it, the atoms and bonds of the part stay: every valid molecule contains it.
"""

from __future__ import annotations

import random
from typing import Any

from afresh.core import UserError
from afresh.domains.molecule import fragments
from afresh.domains.molecule.chem import MoleculeError, canonical, chem, molecule, reason_of
from afresh.domains.molecule.writing import WRITINGS, Form

ATTACHED = 3  # attachment points that are chosen at random, at most
TRIES = 500  # random writings until one ends at the attachment point


def part_of(text: str) -> Any:
    """The part of a SMILES with attachment points `*`, or none. Raises UserError if it is not valid."""
    library = chem()
    found = library.MolFromSmiles(text) if text.strip() else None
    if found is None or found.GetNumHeavyAtoms() == 0:
        raise UserError(
            f"{text!r} is not a scaffold or fragment: {reason_of(text) if text.strip() else 'it is empty'}."
        )
    for atom in found.GetAtoms():
        if atom.GetAtomicNum() == 0 and atom.GetDegree() != 1:
            raise UserError(f"An attachment point * of {text!r} needs exactly one bond, as in c1ccccc1*.")
    return found


def contains(smiles: str, part: str) -> bool:
    """Whether a molecule contains a part, and, if it has several pieces, in one connected structure."""
    library = chem()
    found = library.MolFromSmiles(smiles)
    if found is None or ("." in part and "." in smiles):
        return False
    settings = library.AdjustQueryParameters.NoAdjustments()
    settings.makeDummiesQueries = True
    query = library.AdjustQueryProperties(part_of(part), settings)
    return bool(found.HasSubstructMatch(query))


def beginning(form: Form, text: str, seed: int) -> str:
    """The beginning of a molecule that contains a part. Without attachment points, some are chosen by `seed`.

    Raises UserError if the form cannot begin with it.
    """
    rng = random.Random(seed)
    part = part_of(text)
    points = [a.GetIdx() for a in part.GetAtoms() if a.GetAtomicNum() == 0]
    if form == "selfies":
        raise UserError("Molecules as SELFIES cannot be built on a part. Train with `data.form=fragments`.")
    if form == "smiles":
        if len(points) > 1 or "." in text:
            raise UserError(
                f"{text!r} has {len(points)} attachment points. A model of SMILES goes on at one; to decorate several "
                "or to link pieces, train with `data.form=fragments`."
            )
        return _ending_at(part if points else _with_points(part, 1, rng), text, rng)
    if not points:
        part = _with_points(part, rng.randint(1, ATTACHED), rng)
    return _open(part, text)


def _with_points(part: Any, count: int, rng: random.Random) -> Any:
    """A part with attachment points at random atoms that have hydrogens, if possible of a ring."""
    library = chem()
    free = [a for a in part.GetAtoms() if a.GetTotalNumHs() > 0 and a.GetAtomicNum() > 0]
    ring = [a for a in free if a.IsInRing()] or free
    if not ring:
        raise UserError(f"{library.MolToSmiles(part)} has no atom with a hydrogen to go on from.")
    chosen = rng.sample([a.GetIdx() for a in ring], min(count, len(ring)))
    grown = library.RWMol(part)
    for index in chosen:
        atom = grown.GetAtomWithIdx(index)
        if atom.GetNumExplicitHs():
            atom.SetNumExplicitHs(atom.GetNumExplicitHs() - 1)
        grown.AddBond(index, grown.AddAtom(library.Atom(0)), library.BondType.SINGLE)
    library.SanitizeMol(grown)
    return grown.GetMol()


def _ending_at(part: Any, text: str, rng: random.Random) -> str:
    """A SMILES of a part that ends at its only attachment point, which is left out."""
    library = chem()
    for _ in range(TRIES):
        written: str = library.MolToRandomSmilesVect(part, 1, randomSeed=rng.randrange(1, 1 << 31))[0]
        if written.endswith("*") and not written.endswith("-*"):
            return written[:-1]
    raise UserError(f"No way to write {text!r} that ends at its attachment point was found. Use `data.form=fragments`.")


def _open(part: Any, text: str) -> str:
    """A part whose attachment points are open ring closures, and the dot after it."""
    library = chem()
    labelled, count = library.RWMol(part), 0
    for atom in labelled.GetAtoms():
        if atom.GetAtomicNum() == 0:
            count += 1
            atom.SetAtomMapNum(0)
            atom.SetIsotope(count)
    pieces = library.GetMolFrags(labelled.GetMol(), asMols=True, sanitizeFrags=False)
    texts = []
    for piece in pieces:
        own = [a.GetIdx() for a in piece.GetAtoms() if a.GetAtomicNum() > 0]
        if len(own) == piece.GetNumAtoms() and len(pieces) > 1:
            raise UserError(f"Every piece of {text!r} needs an attachment point *, as in c1ccccc1*.C1CCNCC1*.")
        texts.append(library.MolToSmiles(piece, rootedAtAtom=own[0]))
    return fragments.numbered(".".join(texts)) + "."


def varied(form: Form, text: str, strength: float, seed: int) -> str:
    """The beginning of a random writing of a molecule, of which a share `strength` at the end is left out.

    Fragments are kept or left out as a whole. Raises UserError if the text is not a molecule.
    """
    try:
        smiles = canonical(text)
        molecule(text)
    except MoleculeError as error:
        raise UserError(f"{text!r} is not a molecule: {error}.") from None
    assert smiles is not None
    writing, rng = WRITINGS[form], random.Random(seed)
    written = writing.vary(smiles, rng.randrange(1 << 31))
    if form == "fragments":
        pieces = written.split(".")
        kept = round((1 - strength) * len(pieces))
        return written if kept == len(pieces) else "".join(f"{p}." for p in pieces[:kept])
    tokens = writing.split(written)
    return "".join(tokens[: round((1 - strength) * len(tokens))])
