"""The filters of MOSES: medicinal chemistry filters (MCF), PAINS, and plain rules.

The SMARTS of MCF are those of MOSES (Polykovskiy et al. 2020; package molsets), Copyright 2018 Insilico Medicine, Inc,
under the MIT licence: permission is hereby granted, free of charge, to any person obtaining a copy, to deal in it
without restriction, provided that this notice is included. PAINS (Baell and Holloway 2010) are RDKit's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from afresh.domains.molecule.alerts import catalogue
from afresh.domains.molecule.chem import chem

ALLOWED = frozenset({"C", "N", "S", "O", "F", "Cl", "Br", "H"})
LARGEST_RING = 7  # atoms
MCF = (
    "[#6]=&!@[#6]-[#6]#[#7]",
    "[#6]=&!@[#6]-[#16](=[#8])=[#8]",
    "[#6]=&!@[#6&!H0]-&!@[#6](=[#8])-&!@[#7]",
    "[H]C([H])([#6])[F,Cl,Br,I]",
    "[#6]1-[#8]-[#6]-1",
    "[#6]-[#7]=[#6]=[#8]",
    "[#6&!H0]=[#8]",
    "[#6](=&!@[#7&!H0])-&!@[#6,#7,#8,#16]",
    "[#6]1-[#7]-[#6]-1",
    "[#6]~&!@[#7]~&!@[#7]~&!@[#6]",
    "[#7]=&!@[#7]",
    "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#8]-1",
    "[H][#6]-1=[#6]([H])-[#6]=[#6](-*)-[#16]-1",
    "[#17,#35,#53]-c(:*):[!#1!#6]:*",
    "[H][#7]([H])-[#6]-1=[#6]-[#6]=[#6]-[#6]=[#6]-1",
    "[#16]~[#16]",
    "[#7]~&!@[#7]~&!@[#7]",
    "[#7]-&!@[#6&!H0&!H1]-&!@[#7]",
    "[#6&!H0](-&!@[#8])-&!@[#8]",
    "[#35].[#35].[#35]",
    "[#17].[#17].[#17].[#17]",
    "[#9].[#9].[#9].[#9].[#9].[#9].[#9]",
)


@cache
def _patterns() -> list[Any]:
    return [chem().MolFromSmarts(s) for s in MCF]


def passes(found: Any) -> bool:
    """Whether a molecule has no ring of eight or more atoms, no charge, no rare element, and no pattern of MCF
    (Polykovskiy et al. 2020) or PAINS (Baell and Holloway 2010)."""
    if any(len(ring) > LARGEST_RING for ring in found.GetRingInfo().AtomRings()):
        return False
    if any(a.GetFormalCharge() or a.GetSymbol() not in ALLOWED for a in found.GetAtoms()):
        return False
    with_hydrogens = chem().AddHs(found)
    if any(with_hydrogens.HasSubstructMatch(p) for p in _patterns()):
        return False
    return not catalogue("PAINS").HasMatch(with_hydrogens)
