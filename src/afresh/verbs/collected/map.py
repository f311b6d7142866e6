"""A map of a data set: items that resemble each other lie close together, and those that resemble none are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError, registry
from afresh.data.collected import MODALITIES

FEWEST = 5  # items of a map
NEIGHBOURS = 5  # whose mean distance says how far out an item is
OUTLIERS = 8
WIDE = 50  # numbers by which items are compared
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """Points (n, 2) in [0, 1] of the rows, which of them were kept, and the rows that are farthest from all others,
    with how far: the distance to the nearest ones in units of the median."""

    rows: tuple[dict[str, Any], ...]
    points: Array
    kept: tuple[bool, ...]
    outliers: tuple[tuple[int, float], ...]


def map_of(folder: Path, kept: Sequence[dict[str, Any]], outside: Sequence[dict[str, Any]]) -> Map | None:
    """The map of the items of the most frequent kind, beside what was left out; None if they are too few."""
    kinds = [r["kind"] for r in kept]
    kind = max(sorted(set(kinds)), key=kinds.count, default="")
    rows = [r for r in kept if r["kind"] == kind]
    others = [r for r in outside if r["kind"] == kind]
    if kind in ("text", "code", "conversation"):
        others = [r for r in others if len(r["excerpt"].split()) >= 3]
        texts = [r["text"] or "" for r in rows] + [r["excerpt"] for r in others]
        features = of_texts(texts) if len(rows) >= FEWEST else None
    else:
        others = [r for r in others if r["file"]]
        features, read = of_files(kind, [folder / r["file"] for r in (*rows, *others)])
        rows, others = (
            [r for r, ok in zip(rows, read, strict=False) if ok],
            [r for r, ok in zip(others, read[len(rows) :], strict=True) if ok],
        )
    if features is None or len(rows) < FEWEST:
        return None
    far = distances(features[: len(rows)])
    order = np.argsort(-far, kind="stable")[:OUTLIERS]
    middle = float(np.median(far)) or 1.0
    named = tuple((int(i), float(far[i] / middle)) for i in order if far[i] > 1.25 * middle)
    flags = (True,) * len(rows) + (False,) * len(others)
    return Map((*rows, *others), in_two(features), flags, named)


def of_texts(texts: Sequence[str]) -> Array | None:
    """Texts (n, D <= 50) by their words: TF-IDF, then a truncated singular value decomposition."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        weights = TfidfVectorizer(max_features=20_000, sublinear_tf=True, max_df=0.9).fit_transform(texts)
    except ValueError:  # no words at all
        return None
    width = min(WIDE, weights.shape[1] - 1, weights.shape[0] - 1)
    if width < 2:
        return None
    return np.asarray(TruncatedSVD(width, random_state=0).fit_transform(weights), np.float64)


def of_files(kind: str, files: Sequence[Path]) -> tuple[Array | None, list[bool]]:
    """Files (n, D) by the features of their kind, or else by their pictures made small; and which could be read."""
    from PIL import Image

    try:
        items = registry.modality(MODALITIES.get(kind, (kind,))[0]).kind
    except UserError:
        return None, [False] * len(files)
    values, read = [], []
    for file in files:
        try:
            values.append(items.decode(file.read_bytes()))
            read.append(True)
        except (OSError, ValueError):
            read.append(False)
    if not values:
        return None, read
    if items.features is not None:
        return np.asarray(items.features(values), np.float64), read
    pictures = [p.image for p in items.previews(values)]
    if any(p is None for p in pictures):
        return None, read
    small = [Image.fromarray(np.asarray(p).squeeze()).convert("RGB").resize((12, 12)) for p in pictures]
    return np.stack([np.asarray(s, np.float64).ravel() / 255 for s in small]), read


def distances(features: Array) -> Array:
    """(n,) The mean distance of each row to its nearest ones."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(features) - 1)
    near = NearestNeighbors(n_neighbors=count).fit(features)
    return np.asarray(near.kneighbors()[0].mean(1), np.float64)


def in_two(features: Array) -> Array:
    """(n, 2) in [0, 1]: what is close in the features is close here (t-SNE, van der Maaten and Hinton 2008)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if features.shape[1] > WIDE:
        features = PCA(min(WIDE, *features.shape), random_state=0).fit_transform(features)
    if len(features) >= 30:
        perplexity = min(30.0, (len(features) - 1) / 4)
        learner = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=500, angle=0.8)
        points = learner.fit_transform(features)
    else:
        points = PCA(2, random_state=0).fit_transform(features)
    low, high = points.min(0), points.max(0)
    return np.asarray((points - low) / np.maximum(high - low, 1e-9), np.float64)
