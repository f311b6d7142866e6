"""The fingerprint of Gobbi and Poppinger's two-dimensional pharmacophores (1998), as RDKit numbers its bits.

`rdkit.Chem.Pharm2D.Generate.Gen2DFingerprint` walks through pairs and triples of features in Python. Here they are
arrays, and RDKit is asked once for the bit of each combination: the same bits in a sixth of the time.
"""

from __future__ import annotations

from functools import cache, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.molecule.chem import chem, require

Codes = NDArray[np.int64]

NEAREST, FURTHEST, LAST = 2, 100, 8  # bonds between two features: from, to below, and from where on they are one bin
BINS = LAST - NEAREST + 1


@cache
def _factory() -> Any:
    require()
    from rdkit.Chem.Pharm2D import Gobbi_Pharm2D

    return Gobbi_Pharm2D.factory


@lru_cache(maxsize=256)
def _chosen(points: int, count: int) -> tuple[Codes, ...]:
    """The first, second, ... index of every choice of `count` of `points`."""
    return tuple(np.array(list(combinations(range(points), count)), dtype=np.int64).reshape(-1, count).T)


@cache
def _bit(count: int, code: int, families: int) -> int:
    """RDKit's number of the bit of `count` features and the bins of the distances between them."""
    distances, features = [], []
    for _ in range(count * (count - 1) // 2):
        code, place = divmod(code, BINS)
        distances.append(place + NEAREST)
    for _ in range(count):
        code, feature = divmod(code, families)
        features.append(feature)
    return int(_factory().GetBitIdx(features[::-1], distances[::-1], sortIndices=False))


def pharmacophores(mol: Any) -> Any:
    """The pairs and triples of features of a molecule, and the distances between them, as a bit vector of RDKit."""
    from rdkit.DataStructs import SparseBitVect

    factory = _factory()
    matches = factory.GetMolFeats(mol)
    out = SparseBitVect(factory._sigSize)
    points = sorted({(feature, atoms[0]) for feature, found in enumerate(matches) for atoms in found})
    if len(points) < 2:
        return out
    feature, atom = np.array(points, dtype=np.int64).T
    bonds = chem().GetDistanceMatrix(mol, factory.includeBondOrder)[np.ix_(atom, atom)]
    far = (bonds >= NEAREST) & (bonds < FURTHEST)
    bins = np.where(far, np.minimum(bonds, LAST) - NEAREST, -1).astype(np.int64)
    for count in (2, 3):
        chosen = _chosen(len(points), count)
        code, usable = np.zeros(len(chosen[0]), np.int64), np.ones(len(chosen[0]), bool)
        for index in chosen:
            code = code * len(matches) + feature[index]
        for i, j in combinations(range(count), 2):
            place = bins[chosen[i], chosen[j]]
            code, usable = code * BINS + place, usable & (place >= 0)
        out.SetBitsFromList([_bit(count, c, len(matches)) for c in np.unique(code[usable]).tolist()])
    return out
