"""Molecules as their fragments in any order, in SMILES that every reader of SMILES understands.

The bonds that are cut, acyclic single bonds at a ring, are written as ring closures %10, %11, ... between fragments
that are separated by dots: c1ccccc1%10.C%10O is c1ccccc1CO. A text that begins with some fragments whose closures are
open can therefore be continued with the others, and the fragments stay what they are.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from typing import Any

from afresh.domains.molecule.chem import canonical, chem, readable

CUT = "[R]-!@[*]"  # an acyclic single bond of a ring atom
KEPT = 0.25  # share of the bonds that are not cut in a random writing, so that fragments of other sizes occur, too
FIRST, MOST = 10, 40  # numbers of the closures: RDKit writes smaller ones for the rings of a fragment
DUMMY = re.compile(r"\(\[(\d+)\*\]\)|\[(\d+)\*\]")
CLOSURE = re.compile(r"[-=#:/\\]?%(\d\d)")


@cache
def _cut_pattern() -> Any:
    return chem().MolFromSmarts(CUT)


def write(smiles: str, seed: int | None = None) -> str:
    """The molecule as fragments, in the order of its atoms, or in a random order and writing that depends on `seed`.

    The idea is that of SAFE (Noutahi et al. 2024, "Gotta be SAFE"), which cuts the bonds of BRICS. A molecule that
    cannot be written in this way, or whose configuration would change, is written as one fragment.
    """
    library = chem()
    found = library.MolFromSmiles(smiles)
    if found is None:
        return smiles
    rng = None if seed is None else random.Random(seed)
    bonds = sorted({found.GetBondBetweenAtoms(*pair).GetIdx() for pair in found.GetSubstructMatches(_cut_pattern())})
    if rng is not None:
        bonds = [b for b in bonds if rng.random() >= KEPT]
    if not bonds or len(bonds) > MOST:
        return smiles
    labels = [(i + 1, i + 1) for i in range(len(bonds))]
    pieces = library.GetMolFrags(library.FragmentOnBonds(found, bonds, True, labels), asMols=True, sanitizeFrags=False)
    texts = [_piece(p, rng) for p in pieces]
    if rng is not None:
        rng.shuffle(texts)
    text = numbered(".".join(texts))
    return text if canonical(text) == smiles else smiles


def _piece(piece: Any, rng: random.Random | None) -> str:
    """A fragment, beginning with an atom of its own, with its dummies [n*] after the atoms that they are bound to."""
    own = [a.GetIdx() for a in piece.GetAtoms() if a.GetAtomicNum() > 0]
    root = own[0] if rng is None else rng.choice(own)
    text: str = chem().MolToSmiles(piece, rootedAtAtom=root)
    return text


def numbered(text: str) -> str:
    """A text with its dummies [n*] replaced by ring closures, numbered in the order in which they occur."""
    numbers: dict[str, int] = {}

    def closure(match: re.Match[str]) -> str:
        label = match[1] or match[2]
        return f"%{numbers.setdefault(label, FIRST + len(numbers))}"

    return DUMMY.sub(closure, text)


def read(text: str) -> str:
    """The SMILES of a text of fragments. One that is not a molecule is mended, as SAFE and GenMol (Lee et al. 2025) do
    when they decode: fragments that cannot be part of a molecule are left out, closures that no other one answers
    become hydrogens, and the largest of several pieces is kept. What is still not a molecule is returned unchanged."""
    if readable(text):
        return text
    parts = [p for p in text.split(".") if readable(CLOSURE.sub("(*)", p))]
    mended = canonical(_answered(".".join(parts)))
    return text if mended is None else max(mended.split("."), key=len)


def _answered(text: str) -> str:
    """A text in which the last of an odd number of equal closures is a hydrogen."""
    unanswered = {n for n, times in Counter(CLOSURE.findall(text)).items() if times % 2}
    for match in reversed(list(CLOSURE.finditer(text))):
        if match[1] in unanswered:
            unanswered.remove(match[1])
            text = f"{text[: match.start()]}([H]){text[match.end() :]}"
    return text
