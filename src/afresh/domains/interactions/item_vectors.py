"""What the features of items say, as vectors in which items that are alike are near one another.

A feature is a word of a column (Catalogue.words). Features that describe the same items get vectors that are near one
another: the leading directions of the table of items and features (latent semantic analysis: Deerwester et al. 1990).
Beside them stand, with as much weight each, what a text encoder says of columns of sentences, if there is one, and what
pictures look like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.safe_json import read_model
from afresh.data.captions import AUTO, WORDS, CaptionEncoder, SavedCaptions, fit_captions
from afresh.data.text_encoder_source import MINILM, cached
from afresh.domains.interactions.catalogue import Catalogue, is_sentences
from afresh.domains.interactions.item_pictures import PictureVectors, are_pictures, fit_pictures
from afresh.storage.files import replace_file
from afresh.storage.tensor_file import check_tensor

Floats = NDArray[np.float32]
FILE = "features.json"
DIRECTIONS = 128  # of the vectors of features, where there are more of them


class _Saved(BaseModel):
    """Content of features.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    names: tuple[str, ...]
    text_columns: tuple[str, ...] = ()
    texts: SavedCaptions | None = None
    picture_column: str = ""


@dataclass(frozen=True, eq=False)
class FeatureVectors:
    """W features by name, and a vector of each (W, D): its direction, times the logarithm of how rare it is.

    `texts` encodes the sentences of `text_columns`; `pictures` those that are named in `picture_column`.
    """

    names: tuple[str, ...]
    vectors: Floats
    text_columns: tuple[str, ...] = ()
    texts: CaptionEncoder | None = None
    picture_column: str = ""
    pictures: PictureVectors | None = None

    @cached_property
    def index(self) -> Mapping[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def width(self) -> int:
        """D of the vectors of items."""
        others = (0 if self.texts is None else self.texts.saved.width,)
        return self.vectors.shape[1] + sum(others) + (0 if self.pictures is None else len(self.pictures.directions))

    def of(self, catalogue: Catalogue, first: int = 0) -> Floats:
        """Vectors of length 1 of the items of a catalogue, (V, D); 0 where nothing of an item is known. Texts and
        pictures are looked at from item `first` on. Raises UserError if a text encoder is needed that is not on this
        machine."""
        words = np.zeros((len(catalogue), self.vectors.shape[1]), dtype=np.float32)
        for i, name in zip(*catalogue.words, strict=True):
            if (word := self.index.get(name)) is not None:
                words[i] += self.vectors[word]
        parts = [words]
        if self.texts is not None:
            parts.append(encoded(self.texts, texts_of(catalogue, self.text_columns)[first:]))
        if self.pictures is not None:
            named = catalogue.features.get(self.picture_column, [None] * len(catalogue))
            parts.append(self.pictures.of(catalogue.folder, named[first:]))
        whole = [np.pad(p, ((len(words) - len(p), 0), (0, 0))) for p in map(unit, parts)]
        return unit(np.concatenate(whole, 1))

    def tensors(self) -> dict[str, Tensor]:
        """The parts that are numbers, to be saved."""
        out = {"features": self.vectors}
        if self.pictures is not None:
            out |= {"picture_mean": self.pictures.mean, "picture_directions": self.pictures.directions}
        return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in out.items()}

    def save(self, folder: Path) -> None:
        """Write features.json, and the statistics of texts if they are encoded; `tensors` are not written."""
        texts = None if self.texts is None else self.texts.saved
        saved = _Saved(
            names=self.names, text_columns=self.text_columns, texts=texts, picture_column=self.picture_column
        )
        replace_file(folder / FILE, saved.model_dump_json().encode())
        if self.texts is not None:
            self.texts.save(folder)


def load_features(folder: Path, tensors: Mapping[str, Tensor]) -> FeatureVectors:
    """Raises UserError if a file is missing or damaged, and ValueError for tensors that do not belong to it."""
    saved = read_model(folder / FILE, _Saved, "what the features of items say")
    width = tensors["features"].shape[1] if "features" in tensors else 0
    vectors = check_tensor(tensors, "features", (len(saved.names), width), (torch.float32,))
    pictures = None
    if "picture_mean" in tensors:
        count, size = tensors["picture_directions"].shape
        mean = check_tensor(tensors, "picture_mean", (size,), (torch.float32,))
        directions = check_tensor(tensors, "picture_directions", (count, size), (torch.float32,))
        pictures = PictureVectors(mean.numpy(), directions.numpy())
    texts = None if saved.texts is None else CaptionEncoder.load(folder, saved.texts)
    return FeatureVectors(saved.names, vectors.numpy(), saved.text_columns, texts, saved.picture_column, pictures)


def unit(rows: Floats) -> Floats:
    """Rows of length 1; those of length 0 stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def texts_of(catalogue: Catalogue, columns: Sequence[str]) -> list[str]:
    """What is written of each item in columns of sentences; "" where there is nothing."""
    every = [catalogue.features.get(c, [None] * len(catalogue)) for c in columns]
    return [". ".join(str(v) for v in row if v) for row in zip(*every, strict=True)] or [""] * len(catalogue)


def encoded(encoder: CaptionEncoder, texts: Sequence[str]) -> Floats:
    """(n, E), 0 for empty texts."""
    out = np.zeros((len(texts), encoder.saved.width), dtype=np.float32)
    there = [i for i, text in enumerate(texts) if text]
    out[there] = encoder([texts[i] for i in there]).numpy()
    return out


def fit_features(catalogue: Catalogue, texts: str = AUTO, seed: int = 0) -> tuple[FeatureVectors, list[str]]:
    """The features of a catalogue that has some, by its items that were chosen in training; and notes on what they are.

    `texts`: the encoder of sentences, as of captions (data/captions.py); auto: minilm if it is on this machine. Raises
    UserError if it does not exist, or if there are no sentences.
    """
    words, vectors = word_vectors(catalogue, seed)
    notes = []
    prose = tuple(c for c, values in catalogue.features.items() if is_sentences(c, values))
    if texts not in (AUTO, WORDS) and not prose:
        raise UserError(
            f"`data.texts={texts}` encodes sentences, and no column of items holds any. The columns are: "
            f"{', '.join(catalogue.features)}. Leave `data.texts` out."
        )
    name = (MINILM if cached(MINILM) else WORDS) if texts == AUTO else texts
    said = [t for t, n in zip(texts_of(catalogue, prose), catalogue.counts.tolist(), strict=True) if t and n]
    encoder = None if name == WORDS or not prose else fit_captions(name, said)[0]
    if prose:
        how = "their words" if encoder is None else encoder.saved.name
        notes.append(f"sentences in {', '.join(prose)} are encoded by {how}")
    found = FeatureVectors(words, vectors, prose if encoder is not None else (), encoder)
    column = next((c for c, values in catalogue.features.items() if are_pictures(values)), "")
    if column and catalogue.folder is not None:
        named = [v if n else None for v, n in zip(catalogue.features[column], catalogue.counts.tolist(), strict=True)]
        fitted = fit_pictures(catalogue.folder, named, seed)
        count = 0 if fitted is None else fitted[1]
        notes.append(
            f"{counted(count, 'picture')} named in {column} could be read, of {sum(v is not None for v in named):,}"
        )
        if fitted is not None:
            found = replace(found, picture_column=column, pictures=fitted[0])
    return found, notes


def word_vectors(catalogue: Catalogue, seed: int) -> tuple[tuple[str, ...], Floats]:
    """The names of the features, and a vector of each."""
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    table, names = catalogue.table
    table = table[catalogue.counts > 0]
    rarity = np.log(table.shape[0] / np.maximum(np.asarray(table.sum(0)).ravel(), 1)).astype(np.float32)
    if len(names) <= DIRECTIONS:
        return names, np.diag(rarity)
    weighted = table @ sparse.diags(rarity)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    weighted = sparse.diags(1 / np.where(length > 0, length, 1)) @ weighted
    found = TruncatedSVD(min(DIRECTIONS, table.shape[0]), random_state=seed).fit(weighted)
    return names, np.asarray(rarity[:, None] * found.components_.T, np.float32)


def beside(vectors: Floats, near: NDArray[np.int32], weight: Floats) -> Floats:
    """Vectors in which an item without features has the mean of its neighbours (V, K), by their weights (V, K)."""
    out = vectors.copy()
    for i in np.flatnonzero(~vectors.any(1)).tolist():
        out[i] = weight[i] @ vectors[near[i]]
    return unit(out)
