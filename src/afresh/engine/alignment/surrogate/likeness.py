"""How like two items are by their descriptors, and kernels of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afresh.core import Descriptors, ItemKind, UserError

Array = NDArray[np.float64]

SMALLEST = 1e-12


@dataclass(frozen=True)
class Likeness:
    """Functions of descriptors (n, D) and (m, D). `similarity` (n, m) is from 0 to 1. `kernel` (n, m), with one of the
    `shapes`, is positive definite, and `diagonal` (n,) is that of the kernel of rows with themselves."""

    similarity: Callable[[Array, Array], Array]
    kernel: Callable[[Array, Array, float], Array]
    diagonal: Callable[[Array, float], Array]
    shapes: tuple[float, ...]


def tanimoto(a: Array, b: Array) -> Array:
    """<a, b> / (|a|^2 + |b|^2 - <a, b>) of counts (n, D) and (m, D): a positive definite kernel (Ralaivola et al. 2005,
    "Graph kernels for chemical informatics"). Two rows of zeros are equal."""
    return _shared(a @ b.T, a, b)


def _shared(products: Array, a: Array, b: Array) -> Array:
    """`tanimoto` of rows whose inner products are known."""
    union = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - products
    same = union <= SMALLEST
    out: Array = np.divide(products, union, out=union, where=~same)
    out[same] = 1.0
    return out


def squares(a: Array, b: Array) -> Array:
    """Squared distances (n, m) of rows."""
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T, 0.0)


def by_tanimoto(known: Array) -> Likeness:
    """Tanimoto similarity and products of counts: what an item is like, and what each of its parts adds. A shape is the
    share of the first."""
    size = max(float(np.square(known).sum(1).mean()), SMALLEST)

    def kernel(a: Array, b: Array, share: float) -> Array:
        products = a @ b.T
        out = _shared(products, a, b)
        out *= share
        products *= (1 - share) / size
        out += products
        return out

    def diagonal(a: Array, share: float) -> Array:
        return share + (1 - share) / size * np.square(a).sum(1)

    return Likeness(tanimoto, kernel, diagonal, (1.0, 0.5, 0.2, 0.05))


def by_distance(known: Array) -> Likeness:
    """exp(-d^2 / 2 m^2), where m is the median distance of two of the known rows, to the power of a shape."""
    own = squares(known[:1000], known[:1000])[np.triu_indices(min(len(known), 1000), 1)]
    middle = float(np.median(own[own > SMALLEST])) if (own > SMALLEST).any() else 1.0

    def kernel(a: Array, b: Array, power: float) -> Array:
        return np.exp(squares(a, b) * (-power / (2 * middle)))

    return Likeness(
        lambda a, b: kernel(a, b, 1.0),
        kernel,
        lambda a, power: np.ones(len(a)),
        (0.0625, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    )


LIKENESS: Mapping[str, Callable[[Array], Likeness]] = {"tanimoto": by_tanimoto, "distance": by_distance}


def descriptors_of(kind: ItemKind) -> Descriptors:
    """What numbers of items are learnt from. Raises UserError for kinds that have nothing of the sort."""
    if kind.descriptors is not None:
        return kind.descriptors
    if kind.features is not None:
        return Descriptors(kind.features)
    raise UserError(
        f"{kind.plural.capitalize()} have no descriptors from which a measured number could be learnt. Value them by a "
        "`reward` instead.",
        "no_descriptors",
    )
