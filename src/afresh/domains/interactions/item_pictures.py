"""Pictures of items, named in a column of their table, as vectors: the leading directions of small copies of them.

No encoder of pictures comes with this package whose weights were learnt elsewhere, so what counts are colours and
coarse forms (principal components of pixels: Turk and Pentland 1991, eigenfaces).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.image.images import SUFFIXES, ImageError, ImageFrame, decode_image, map_threads

SIDE = 16  # pixels of the copies
DIRECTIONS = 64  # that are kept, where there are as many pictures

Floats = NDArray[np.float32]


def are_pictures(values: Sequence[Any]) -> bool:
    """Whether the values of a column are names of image files."""
    known = [v for v in values if v is not None]
    named = sum(isinstance(v, str) and Path(v.lower()).suffix in SUFFIXES for v in known)
    return bool(known) and named >= 0.9 * len(known)


def pixels(folder: Path, names: Sequence[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Small copies (n, SIDE * SIDE * 3) in [-1, 1], and for which names (n,) there is a picture in the folder that can
    be read; the others are 0."""
    root = folder.resolve()

    def small(name: Any) -> Floats | None:
        file = (root / str(name)).resolve()
        if name is None or not file.is_relative_to(root):  # what lies outside is not read
            return None
        try:
            found = decode_image(file, ImageFrame(SIDE, "pad")).pixels
        except (ImageError, OSError):
            return None
        return np.broadcast_to(found, (SIDE, SIDE, 3)).reshape(-1).astype(np.float32) / 127.5 - 1

    made = map_threads(small, names)
    there = np.array([m is not None for m in made], dtype=bool)
    out = np.zeros((len(names), SIDE * SIDE * 3), dtype=np.float32)
    for i in np.flatnonzero(there).tolist():
        out[i] = made[i]
    return out, there


@dataclass(frozen=True, eq=False)
class PictureVectors:
    """`mean` (P,) of the pixels, and `directions` (R, P)."""

    mean: Floats
    directions: Floats

    def of(self, folder: Path | None, names: Sequence[Any]) -> Floats:
        """(n, R), 0 where there is no picture."""
        if folder is None:
            return np.zeros((len(names), len(self.directions)), dtype=np.float32)
        found, there = pixels(folder, names)
        return np.asarray(((found - self.mean) @ self.directions.T) * there[:, None], np.float32)


def fit_pictures(folder: Path, names: Sequence[Any], seed: int = 0) -> tuple[PictureVectors, int] | None:
    """The directions in which the pictures differ most, and how many could be read; None if fewer than two could."""
    from sklearn.decomposition import PCA

    found, there = pixels(folder, names)
    count = int(there.sum())
    if count < 2:
        return None
    fitted = PCA(min(DIRECTIONS, count - 1), random_state=seed).fit(found[there])
    return PictureVectors(fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32)), count
