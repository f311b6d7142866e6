"""How a molecule is written as tokens: SMILES, SELFIES, or SMILES by fragments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from afresh.domains.molecule import fragments
from afresh.domains.molecule.chem import MoleculeError, chem, require

Form = Literal["smiles", "selfies", "fragments"]
TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|->|<-|%\d\d|%\(\d+\)|[A-Za-z]|\d|[^\s]")
MIRRORED = {"@": "@@", "@@": "@"}
KEPT = 1 << 19  # molecules whose writing, a millisecond's work, is kept: a data set is written for its vocabulary, its
# longest molecule and its tokens


@dataclass(frozen=True)
class Writing:
    """One way to write molecules. `write` takes a canonical SMILES; `read` returns a SMILES, or raises MoleculeError;
    `vary` writes the same molecule differently, depending on a seed."""

    write: Callable[[str], str]
    read: Callable[[str], str]
    vary: Callable[[str, int], str]
    split: Callable[[str], list[str]]


def split_smiles(text: str) -> list[str]:
    """The tokens of a SMILES: atoms in brackets, organic atoms, bonds, branches and ring closures (Schwaller et al.
    2019, "Molecular Transformer"). Joined, they are the text."""
    return TOKEN.findall(text)


def random_smiles(smiles: str, seed: int) -> str:
    """A SMILES of the same molecule that begins at a random atom (Arus-Pous et al. 2019, "Randomized SMILES strings
    improve the quality of molecular generative models")."""
    found = chem().MolFromSmiles(smiles)
    if found is None:
        return smiles
    # With a seed of 0, RDKit takes one of its own.
    text: str = chem().MolToRandomSmilesVect(found, 1, randomSeed=1 + seed % ((1 << 31) - 1))[0]
    return text


def to_selfies(smiles: str) -> str:
    """Raises MoleculeError for molecules that SELFIES cannot express."""
    require("selfies")
    import selfies

    try:
        text: str = selfies.encoder(smiles)
    except selfies.EncoderError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
        raise MoleculeError(f"SELFIES cannot express it: {reason}") from None
    return text


def from_selfies(text: str) -> str:
    import selfies

    try:
        smiles: str = selfies.decoder(text)
    except selfies.DecoderError as error:
        raise MoleculeError(str(error)) from None
    return smiles


def split_selfies(text: str) -> list[str]:
    import selfies

    return list(selfies.split_selfies(text))


def _same(text: str) -> str:
    return text


WRITINGS: dict[str, Writing] = {
    "smiles": Writing(_same, _same, random_smiles, split_smiles),
    "selfies": Writing(
        lru_cache(KEPT)(to_selfies), from_selfies, lambda s, seed: to_selfies(random_smiles(s, seed)), split_selfies
    ),
    "fragments": Writing(lru_cache(KEPT)(fragments.write), fragments.read, fragments.write, split_smiles),
}


def vocabulary(form: Form, molecules: Sequence[str], most: int = 5_000) -> list[str]:
    """The tokens of the molecules and of about `most` random writings of them, at most 20 of each, with what other
    random writings may have: mirrored configurations, bonds of the other direction, lower numbers of ring closures, and
    the symbols that SELFIES count with. Sorted."""
    writing, found = WRITINGS[form], set[str]()
    for smiles in molecules:
        found.update(writing.split(writing.write(smiles)))
    for smiles in molecules[:: max(1, -(-len(molecules) // most))]:
        for seed in range(min(20, -(-most // len(molecules)))):
            with suppress(MoleculeError):
                found.update(writing.split(writing.vary(smiles, seed)))
    return sorted(found | set(_closed(form, found)))


def _closed(form: Form, found: Iterable[str]) -> Iterator[str]:
    for token in found:
        if "@" in token:
            yield re.sub(r"@+", lambda m: MIRRORED.get(m[0], m[0]), token)
        if "/" in token or "\\" in token:
            yield from (token.replace("\\", "/"), token.replace("/", "\\"))
        if form == "selfies" and ("Ring" in token or "Branch" in token):
            from selfies.constants import INDEX_ALPHABET

            yield from INDEX_ALPHABET
        if form != "selfies" and token.isdigit():
            yield from map(str, range(1, int(token) + 1))
        if form == "fragments" and token.startswith("%"):
            yield from (f"%{n}" for n in range(fragments.FIRST, int(token[1:].strip("()")) + 1))
