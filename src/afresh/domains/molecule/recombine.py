"""New molecules from old ones: parts of two are joined, or an atom, a bond or a ring of one is changed.

The operators are those of the graph-based genetic algorithm of Jensen (2019, "A graph-based genetic algorithm and
generative model/Monte Carlo tree search for the exploration of chemical space"): two molecules are cut at acyclic
single bonds or through rings and a part of each is kept; seven changes of one molecule. Bonds and atoms are edited
directly, which is several times faster than reactions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from afresh.domains.molecule.chem import chem

ORGANIC = (5, 6, 7, 8, 9, 15, 16, 17, 35, 53)  # elements whose hydrogens follow from their bonds
ATOMS = (6, 7, 8, 9, 16, 17, 35)  # C N O F S Cl Br
USUAL_BONDS = {15: 3, 16: 2, 17: 1, 35: 1, 53: 1}  # of elements that may have more
SINGLE, CHANGED = 0.1, 0.1  # shares of offspring of one parent, and of those of two that are changed, too
ACROSS_RINGS = 0.5  # share of the cuts that go through rings
LARGEST_RING = 7
TRIES = 8  # until an operator gives a valid molecule


def offspring(parents: Sequence[tuple[str, str]], seed: int) -> list[str]:
    """One new molecule for each pair of SMILES that can be recombined, as canonical SMILES."""
    rng = random.Random(seed)
    out = []
    for first, second in parents:
        a, b = _parent(first), _parent(second)
        made = None if a is None or b is None else _child(a, b, rng)
        if made is not None:
            out.append(made)
    return out


def _child(a: Parent, b: Parent, rng: random.Random) -> str | None:
    if rng.random() < SINGLE:
        return _tried(lambda: _changed(a.molecule, rng))
    found = _tried(lambda: _crossed(a, b, rng))
    if found is not None and rng.random() < CHANGED:
        again = _parent(found)
        return found if again is None else _tried(lambda: _changed(again.molecule, rng)) or found
    return found


def _tried(make: Callable[[], Any]) -> str | None:
    """The canonical SMILES of the first attempt that is a valid molecule of one piece."""
    library = chem()
    for _ in range(TRIES):
        made = make()
        if made is None:
            continue
        try:
            library.SanitizeMol(made)
            if not _sound(made):
                continue
            text = library.MolToSmiles(made, canonical=False)
        except (ValueError, RuntimeError):  # RDKit's for what cannot be a molecule
            continue
        found = library.MolFromSmiles(text)
        if found is not None and found.GetNumHeavyAtoms() > 1 and "." not in text and "*" not in text:
            canonical: str = library.MolToSmiles(found)
            return canonical
    return None


@dataclass(frozen=True)
class Parent:
    """A molecule with alternating bonds, whose hydrogens follow from its bonds.

    `near`: the neighbours of each atom. `chain`: the single bonds outside of rings, and `rings`: the bonds of each
    ring, as pairs of atoms.
    """

    molecule: Any
    near: list[list[int]]
    chain: list[tuple[int, int]]
    rings: list[list[tuple[int, int]]]


@lru_cache(4096)
def _parent(smiles: str) -> Parent | None:
    """None if the SMILES cannot be read."""
    library = chem()
    found = library.MolFromSmiles(smiles)
    if found is None or not found.GetNumAtoms():
        return None
    try:
        library.Kekulize(found, clearAromaticFlags=True)
    except ValueError:
        return None
    for atom in found.GetAtoms():
        if atom.GetAtomicNum() in ORGANIC and not atom.GetFormalCharge() and not atom.GetIsotope():
            atom.SetNoImplicit(False)
            atom.SetNumExplicitHs(0)
    found.UpdatePropertyCache(False)
    near: list[list[int]] = [[] for _ in range(found.GetNumAtoms())]
    chain, ends = [], []
    for bond in found.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        ends.append((i, j))
        near[i].append(j)
        near[j].append(i)
        if bond.GetBondType() == library.BondType.SINGLE and not bond.IsInRing():
            chain.append((i, j))
    rings = [[ends[b] for b in ring] for ring in found.GetRingInfo().BondRings()]
    return Parent(found, near, chain, rings)


def _sound(made: Any) -> bool:
    """No allenes in rings, no large rings, no double bonds in rings of three or four, and no hydrogen on an atom with
    more bonds than are usual, as the sulfur of C=[SH]C: RDKit takes it for a molecule, but it cannot be made."""
    info = made.GetRingInfo()
    if any(len(ring) > LARGEST_RING for ring in info.AtomRings()):
        return False
    for atom in made.GetAtoms():
        usual = USUAL_BONDS.get(atom.GetAtomicNum())
        if usual is not None and atom.GetTotalValence() > usual and atom.GetTotalNumHs():
            return False
    double = chem().BondType.DOUBLE
    in_ring: dict[int, int] = {}
    for bond in made.GetBonds():
        if bond.GetBondType() == double and bond.IsInRing():
            if info.MinBondRingSize(bond.GetIdx()) < 5:
                return False
            for atom in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()):
                in_ring[atom] = in_ring.get(atom, 0) + 1
    return all(n < 2 or made.GetAtomWithIdx(i).GetAtomicNum() == 16 for i, n in in_ring.items())


# ------------------------------------------------------------------------------------------------------ two molecules


def _crossed(a: Parent, b: Parent, rng: random.Random) -> Any:
    cut = _cut_ring if rng.random() < ACROSS_RINGS else _cut_chain
    one, two = cut(a, rng), cut(b, rng)
    if one is None or two is None:
        return None
    return _joined(*one, *two, rng)


def _cut_chain(parent: Parent, rng: random.Random) -> tuple[Any, list[int]] | None:
    """(molecule, [the atom that is open]): one side of an acyclic single bond."""
    if not parent.chain:
        return None
    i, j = rng.choice(parent.chain)
    return _side(parent, [(i, j) if rng.random() < 0.5 else (j, i)])


def _cut_ring(parent: Parent, rng: random.Random) -> tuple[Any, list[int]] | None:
    """(molecule, [two atoms that are open]): one side of a ring that is cut at two of its bonds."""
    if not parent.rings:
        return None
    for _ in range(TRIES):
        cuts = rng.sample(rng.choice(parent.rings), 2)
        turned = rng.random() < 0.5
        one = _side(parent, [(j, i) for i, j in cuts] if turned else cuts)
        if one is not None:
            return one
    return None


def _side(parent: Parent, cuts: Sequence[tuple[int, int]]) -> tuple[Any, list[int]] | None:
    """The part of a molecule that contains the first atom of the first of the bonds that are cut, and its open atoms;
    None if it contains both ends of a bond, or neither."""
    gone = {*cuts, *((j, i) for i, j in cuts)}
    inside, todo = {cuts[0][0]}, [cuts[0][0]]
    while todo:
        atom = todo.pop()
        for i in parent.near[atom]:
            if i not in inside and (atom, i) not in gone:
                inside.add(i)
                todo.append(i)
    if any((i in inside) == (j in inside) for i, j in cuts):
        return None
    place = {old: new for new, old in enumerate(sorted(inside))}
    part = chem().RWMol(parent.molecule)
    part.BeginBatchEdit()
    for atom in range(len(parent.near)):
        if atom not in inside:
            part.RemoveAtom(atom)
    part.CommitBatchEdit()
    return part, [place[i if i in inside else j] for i, j in cuts]


def _joined(a: Any, open_a: list[int], b: Any, open_b: list[int], rng: random.Random) -> Any:
    library = chem()
    both = library.RWMol(library.CombineMols(a, b))
    shift = a.GetNumAtoms()
    if len(open_a) > 1:
        rng.shuffle(open_a)
    for i, j in zip(open_a, open_b, strict=True):
        double = len(open_a) > 1 and rng.random() < 0.5
        if both.GetBondBetweenAtoms(i, j + shift) is not None:
            return None
        both.AddBond(i, j + shift, library.BondType.DOUBLE if double else library.BondType.SINGLE)
    return both


# ------------------------------------------------------------------------------------------------------- one molecule


def _changed(found: Any, rng: random.Random) -> Any:
    return rng.choice(CHANGES)(chem().RWMol(found), rng)


def _bond_type(rng: random.Random) -> Any:
    library = chem()
    return rng.choices((library.BondType.SINGLE, library.BondType.DOUBLE, library.BondType.TRIPLE), (0.6, 0.35, 0.05))[
        0
    ]


def _append(made: Any, rng: random.Random) -> Any:
    library, kind = chem(), _bond_type(rng)
    needed = int(kind)
    free = [a.GetIdx() for a in made.GetAtoms() if a.GetTotalNumHs() >= needed]
    if not free:
        return None
    elements = {1: ATOMS, 2: (6, 7, 8), 3: (6, 7)}[needed]
    made.AddBond(rng.choice(free), made.AddAtom(library.Atom(rng.choice(elements))), kind)
    return made


def _insert(made: Any, rng: random.Random) -> Any:
    if not made.GetNumBonds():
        return None
    library, single = chem(), chem().BondType.SINGLE
    bond = made.GetBondWithIdx(rng.randrange(made.GetNumBonds()))
    i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    made.RemoveBond(i, j)
    new = made.AddAtom(library.Atom(rng.choice((6, 6, 7, 8, 16))))
    made.AddBond(i, new, library.BondType.DOUBLE if rng.random() < 0.35 else single)
    made.AddBond(new, j, single)
    return made


def _delete(made: Any, rng: random.Random) -> Any:
    """An atom is left out; its neighbours are joined in a chain."""
    atom = made.GetAtomWithIdx(rng.randrange(made.GetNumAtoms()))
    near = [n.GetIdx() for n in atom.GetNeighbors()]
    rng.shuffle(near)
    for i, j in zip(near, near[1:], strict=False):
        if made.GetBondBetweenAtoms(i, j) is None:
            made.AddBond(i, j, chem().BondType.SINGLE)
    made.RemoveAtom(atom.GetIdx())
    return made


def _replace(made: Any, rng: random.Random) -> Any:
    atom = made.GetAtomWithIdx(rng.randrange(made.GetNumAtoms()))
    atom.SetAtomicNum(rng.choice([n for n in ATOMS if n != atom.GetAtomicNum()]))
    atom.SetFormalCharge(0)
    atom.SetNoImplicit(False)
    atom.SetNumExplicitHs(0)
    return made


def _order(made: Any, rng: random.Random) -> Any:
    if not made.GetNumBonds():
        return None
    bond = made.GetBondWithIdx(rng.randrange(made.GetNumBonds()))
    kind = _bond_type(rng)
    if kind == bond.GetBondType():
        return None
    bond.SetBondType(kind)
    return made


def _open_ring(made: Any, rng: random.Random) -> Any:
    bonds = [b for b in made.GetBonds() if b.IsInRing()]
    if not bonds:
        return None
    bond = rng.choice(bonds)
    made.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    return made


def _close_ring(made: Any, rng: random.Random) -> Any:
    """A bond between atoms that are two to five bonds apart, most often a ring of five or six."""
    free = [a.GetIdx() for a in made.GetAtoms() if a.GetTotalNumHs() > 0]
    if len(free) < 2:
        return None
    start, apart = rng.choice(free), rng.choices((2, 3, 4, 5), (0.05, 0.05, 0.45, 0.45))[0]
    distance = chem().GetDistanceMatrix(made)[start]
    ends = [i for i in free if distance[i] == apart]
    if not ends:
        return None
    made.AddBond(start, rng.choice(ends), chem().BondType.SINGLE)
    return made


CHANGES = (_append, _insert, _delete, _replace, _order, _open_ring, _close_ring)
