"""Items as a few codes, made of what they are like, so that items without history have codes that are known.

All codes of an item but the last come from residual k-means: the centre that is nearest to its vector, then the one
nearest to what is left of it, and so on (semantic ids: Rajput et al. 2023, TIGER, sec. 3.1, where a network's codebooks
stand for the centres). The last code counts the items that have the others in common, so that no two items have the
same codes. A code that is full, since as many items as possible begin with it, gives way to the next nearest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.captions import AUTO
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.item_table import ItemTable
from afresh.domains.interactions.item_vectors import FeatureVectors, beside, fit_features, load_features
from afresh.storage.files import write_file
from afresh.storage.tensor_file import check_tensor, read_tensors

FILE = "codes.safetensors"
LEAST_CENTRES, MOST_CENTRES = 8, 1024  # values of a code

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemCodes:
    """N codes of each of V items, `codes` (V, N), each from 0 to K - 1; code c of place n is the token n K + c.

    `centres` (N - 1, K, D): of the vectors of items, then of what is left of them. `features`: what makes the vectors.
    """

    codes: Ints
    centres: Floats
    features: FeatureVectors

    @property
    def each(self) -> int:
        return self.codes.shape[1]

    @property
    def values(self) -> int:
        """K, of one code."""
        return self.centres.shape[1]

    @property
    def size(self) -> int:
        return self.each * self.values

    @cached_property
    def tokens(self) -> Ints:
        """(V, N): those of each item."""
        return np.asarray(self.codes + np.arange(self.each) * self.values, np.int64)

    @cached_property
    def by_tokens(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): i for i, row in enumerate(self.tokens.tolist())}

    def of(self, items: Sequence[int]) -> list[int]:
        found: list[int] = self.tokens[list(items)].ravel().tolist()
        return found

    def items(self, tokens: Sequence[int]) -> list[int]:
        """Tokens are read from each first code on; codes that no item has are left out."""
        out, begun = list[int](), list[int]()
        for token in tokens:
            place = token // self.values
            begun = [*begun, token] if place == len(begun) else [token] if place == 0 else []
            if len(begun) == self.each:
                if (item := self.by_tokens.get(tuple(begun))) is not None:
                    out.append(item)
                begun = []
        return out

    def extended(self, catalogue: Catalogue, neighbours: ItemTable) -> ItemCodes:
        """The codes of a catalogue with more items at its end; those of before keep theirs."""
        new = vectors_of(catalogue, self.features, neighbours, len(self.codes))
        return replace(self, codes=assigned(new, self.centres, self.codes))

    def save(self, folder: Path) -> None:
        """Write codes.safetensors, and what the features say."""
        folder.mkdir(parents=True, exist_ok=True)
        codes, centres = (torch.from_numpy(np.ascontiguousarray(v)) for v in (self.codes, self.centres))
        write_file(folder / FILE, save({"codes": codes, "centres": centres, **self.features.tensors()}))
        self.features.save(folder)


def fit_codes(
    catalogue: Catalogue, neighbours: ItemTable, count: int, texts: str = AUTO, seed: int = 0
) -> tuple[ItemCodes, list[str]]:
    """`count` codes of each item of the catalogue, by centres of the items that were chosen in training, and notes.

    `texts`: the encoder of sentences. Raises UserError if no feature of any item is known, or if there are more items
    than codes can tell apart.
    """
    if not any(v is not None for values in catalogue.features.values() for v in values):
        raise UserError(
            "`data.codes` makes codes of what items are like, and the log says nothing of that. Put a table beside it "
            "with a row for each item and columns such as category, price or title; or leave out `data.codes`.",
            "no_features",
        )
    size = values_for(len(catalogue))
    if len(catalogue) > size**count // 2:
        raise UserError(
            f"{count} codes of {size:,} values each are too few for {counted(len(catalogue), 'item')} and as many new "
            f"ones. Set `data.codes={count + 1}`."
        )
    features, notes = fit_features(catalogue, texts, seed)
    vectors = vectors_of(catalogue, features, neighbours)
    centres = residual_centres(vectors[catalogue.counts > 0], count - 1, size, seed)
    notes.append(f"{count} codes of {size} values for each item")
    if new := int((catalogue.counts == 0).sum()):
        notes.append(f"{counted(new, 'item')} that nobody chose in training: in the catalogue by what is said of them")
    return ItemCodes(assigned(vectors, centres, np.empty((0, count), dtype=np.int64)), centres, features), notes


def values_for(items: int) -> int:
    """The values of a code: 256 for ten thousand items, and more or fewer as the square root of their number."""
    return min(MOST_CENTRES, max(LEAST_CENTRES, 2 ** math.ceil(math.log2(2 * math.sqrt(items)))))


def vectors_of(catalogue: Catalogue, features: FeatureVectors, neighbours: ItemTable, first: int = 0) -> Floats:
    """(n, D), of length 1: what is said of each item from `first` on, or if nothing is, of the items that are chosen
    with it."""
    return beside(features.of(catalogue), neighbours.index.numpy(), neighbours.weight.numpy())[first:]


def residual_centres(vectors: Floats, levels: int, size: int, seed: int) -> Floats:
    """(levels, size, D): the centres of vectors (n, D), of what is left of them, and so on. Where fewer differ, the
    centres repeat."""
    from sklearn.cluster import KMeans

    out, left = [], vectors
    for level in range(levels):
        clusters = min(size, len(np.unique(left.round(5), axis=0)))
        found = KMeans(clusters, n_init=1, random_state=seed + level).fit(left)
        left = left - found.cluster_centers_[found.labels_]
        out.append(np.resize(found.cluster_centers_, (size, vectors.shape[1])))
    return np.asarray(out, np.float32)


def assigned(vectors: Floats, centres: Floats, before: Ints) -> Ints:
    """The codes (m + n, N) of items that have some (m, N), and of n more by their vectors (n, D), in their order."""
    levels, size, _ = centres.shape
    held: dict[tuple[int, ...], int] = {}  # items that begin with these codes
    for row in before.tolist():
        for n in range(levels + 1):
            held[tuple(row[:n])] = held.get(tuple(row[:n]), 0) + 1
    if held.get((), 0) + len(vectors) > size ** (levels + 1):
        raise UserError(
            f"{counted(len(before) + len(vectors), 'item')} are more than {levels + 1} codes of {size:,} values tell "
            "apart. Train a new model with a larger `data.codes`."
        )
    out = np.empty((len(vectors), levels + 1), dtype=np.int64)
    for row, vector in zip(out, vectors, strict=True):
        prefix: tuple[int, ...] = ()
        left = vector
        for level in range(levels):
            distance = ((left - centres[level]) ** 2).sum(1)
            room = size ** (levels - level)
            code = int(distance.argmin())
            if held.get((*prefix, code), 0) >= room:
                nearest = np.argsort(distance, kind="stable").tolist()
                code = next(c for c in nearest if held.get((*prefix, c), 0) < room)
            prefix, left = (*prefix, code), left - centres[level, code]
        row[:] = (*prefix, held.get(prefix, 0))
        for n in range(levels + 1):
            held[prefix[:n]] = held.get(prefix[:n], 0) + 1
    return np.concatenate([before, out])


def load_codes(folder: Path, items: int, count: int) -> ItemCodes:
    """Raises UserError if a file is missing or damaged."""
    file = folder / FILE
    tensors = read_tensors(file)
    try:
        features = load_features(folder, tensors)
        size, width = tensors["centres"].shape[1:]
        codes = check_tensor(tensors, "codes", (items, count), (torch.int64,))
        centres = check_tensor(tensors, "centres", (count - 1, size, width), (torch.float32,))
        if width != features.width:
            raise ValueError(f"vectors have {features.width} numbers, and centres {width}")
        if items and not (0 <= int(codes.min()) <= int(codes.max()) < size and _differ(codes)):
            raise ValueError("codes are out of their range, or two items have the same")
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged: {error}. Restore a copy of it.", "damaged", file=str(file)) from None
    return ItemCodes(codes.numpy(), centres.numpy(), features)


def _differ(codes: Tensor) -> bool:
    return len(torch.unique(codes, dim=0)) == len(codes)
