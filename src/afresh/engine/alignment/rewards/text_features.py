"""Features of texts for a reward model: n-grams of words and characters, and lengths.

n-grams are hashed (Weinberger et al. 2009) and weighted by how rare they are (tf-idf: Salton and Buckley 1988), then
reduced to their leading directions (latent semantic analysis: Deerwester et al. 1990). Everything is fitted on texts
without votes. The features of a text do not depend on its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.sparse import csr_matrix, diags, hstack

from afresh.core import UserError

Array = NDArray[np.float64]

MAX_TEXTS = 5_000  # texts that directions are fitted on
LENGTHS = ("log characters", "log words", "log lines", "share of words that are different")


class TextSettings(BaseModel):
    """Settings of the features of texts. `buckets`: number of hashes for words, and the same for characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: tuple[int, int] = (1, 2)  # n of n-grams, from and to
    characters: tuple[int, int] = (2, 4)
    buckets: int = Field(1 << 13, ge=2, le=1 << 20)
    directions: int = Field(256, ge=0, le=256)  # at most, and at most half the number of texts; 0: no n-grams
    lengths: bool = True
    hidden: int = Field(0, ge=0)  # width of sentence embeddings, which earlier versions could add


def counted(texts: Sequence[str], settings: TextSettings) -> csr_matrix:
    """1 + ln of the counts of n-grams by hash, (n, 2 x buckets). A word is a run of letters and digits, or one other
    sign."""
    from sklearn.feature_extraction.text import HashingVectorizer

    parts = []
    for analyzer, span in (("word", settings.words), ("char_wb", settings.characters)):
        kind: Literal["word", "char_wb"] = "word" if analyzer == "word" else "char_wb"
        made = HashingVectorizer(
            analyzer=kind,
            ngram_range=span,
            n_features=settings.buckets,
            alternate_sign=False,
            norm=None,
            lowercase=True,
            token_pattern=r"(?u)\w+|[^\w\s]",
            dtype=np.float64,
        ).transform(texts)
        parts.append(made)
    out = csr_matrix(hstack(parts))
    out.data = 1 + np.log(out.data)
    return out


def lengths(texts: Sequence[str]) -> Array:
    """The features LENGTHS of each text, (n, 4). Logarithms are ln(1 + number)."""
    rows = []
    for text in texts:
        words = text.lower().split()
        counts = len(text), len(words), len(text.splitlines())
        rows.append([*np.log1p(counts), len(set(words)) / max(1, len(words))])
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(LENGTHS))


class TextFeatures:
    """Texts to features (n, D): directions of n-grams, then lengths.

    `rarity` (2 x buckets,) and `directions` (R, 2 x buckets) are the fitted parameters.
    """

    def __init__(self, settings: TextSettings, rarity: Array, directions: Array) -> None:
        self.settings, self.rarity, self.directions = settings, rarity, directions

    @property
    def blocks(self) -> tuple[int, int]:
        """The widths of the features of n-grams and of lengths."""
        return len(self.directions), len(LENGTHS) * self.settings.lengths

    def shares(self, features: Array) -> list[Array]:
        """The blocks that `bradley_terry.shared` takes.

        Directions are weighted by their deviation over these features (n, D), because weak ones are mostly noise: the
        held-out accuracy on the votes of PandaLM rises from .56 to .65. Lengths have equal weight.
        """
        first, second = self.blocks
        return [features[:, :first].std(0), np.ones(second)]

    def __call__(self, texts: Sequence[str]) -> Array:
        """(n, D) float64."""
        if not texts:
            return np.zeros((0, sum(self.blocks)))
        parts = []
        if len(self.directions):
            parts.append(np.asarray(weighted(counted(texts, self.settings), self.rarity) @ self.directions.T))
        if self.settings.lengths:
            parts.append(lengths(texts))
        return np.concatenate(parts, 1)


def weighted(counts: csr_matrix, rarity: Array) -> csr_matrix:
    """tf-idf with rows of norm 1. The row of a text without n-grams is 0."""
    out = csr_matrix(counts @ diags(rarity))
    norms = np.sqrt(np.asarray(out.multiply(out).sum(1)).ravel())
    return csr_matrix(diags(1 / np.where(norms > 0, norms, 1)) @ out)


def fit_text(texts: Sequence[str], settings: TextSettings | None = None, seed: int = 0) -> TextFeatures:
    """Features fitted on at most MAX_TEXTS texts. Raises UserError if all texts are empty."""
    settings = settings or TextSettings()
    distinct = sorted({t for t in texts if t.strip()})
    if not distinct:
        raise UserError("All texts are empty, so no features can be fitted. Give texts that are not empty.")
    if len(distinct) > MAX_TEXTS:
        chosen = np.random.default_rng(seed).choice(len(distinct), MAX_TEXTS, replace=False)
        distinct = [distinct[i] for i in np.sort(chosen)]
    counts = counted(distinct, settings)
    seen = np.bincount(counts.indices, minlength=counts.shape[1])
    # As in scikit-learn, one additional text is assumed to contain every n-gram, so that weights are finite.
    rarity = np.log((1 + len(distinct)) / (1 + seen)) + 1
    rank = min(settings.directions, len(distinct) // 2)
    directions = np.zeros((0, counts.shape[1]))
    if rank:
        from sklearn.decomposition import TruncatedSVD

        directions = TruncatedSVD(rank, random_state=seed).fit(weighted(counts, rarity)).components_
    # Directions are saved as float32, and are rounded here so that a loaded model computes the same features.
    return TextFeatures(settings, rarity, directions.astype(np.float32).astype(np.float64))
