"""Similarity to the data: 1 for the data itself, less for what is not in it, whatever a reward says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from afresh.core import Cond, Examples, Item, Space
from afresh.data.audio.kind import SOUND
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.monitoring.data_similarity import DataSimilarity


def of_texts(*texts: str) -> DataSimilarity:
    prepared: Any = SimpleNamespace(kind=TEXT, train_items=[Item(t) for t in texts])
    return DataSimilarity(prepared, None)


def of_fields(x: torch.Tensor) -> DataSimilarity:
    """`x` (N, C, ...) uint8."""
    axes = ("height", "width") if x.dim() == 4 else ("time",)
    encoder = SimpleNamespace(space=Space("field", tuple(x.shape[1:]), axes=axes))
    train = Examples(x, Cond(len(x)), scale=2 / 255, shift=-1.0)
    prepared: Any = SimpleNamespace(kind=IMAGE if x.dim() == 4 else SOUND, encoder=encoder, train=train)
    return DataSimilarity(prepared, None)


def test_a_text_of_the_data_is_like_it_and_another_is_not() -> None:
    like = of_texts("the cat sat on the mat", "the cat sat on the mat")
    same, other = (like([t, t], torch.zeros(2))["data_similarity"] for t in ("the cat sat on the mat", "aeiou" * 5))
    assert same == pytest.approx(1) and other < 0.05
    some = like(["the cat sat on the mat", "aeiou" * 5], torch.zeros(2))
    assert some["data_similarity"] == pytest.approx((same + other) / 2)
    assert some["data_similarity_error"] == pytest.approx((same - other) / 2)


def test_a_copy_has_likeness_one_and_black_for_white_none() -> None:
    like = of_fields(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    black, white = torch.full((2, 1, 4, 4), -1.0), torch.full((2, 1, 4, 4), 1.0)
    picture: list[Any] = [None, None]
    assert like(picture, black)["data_similarity"] == pytest.approx(1)
    assert like(picture, white)["data_similarity"] == pytest.approx(0, abs=1e-6)
    assert like(picture, 0 * white)["data_similarity"] == pytest.approx(0.5)


def test_waves_are_compared_by_their_spectra() -> None:
    """A tone is like the same tone of another phase, and not like another."""
    t = torch.arange(512) / 16
    wave = lambda hz, phase: torch.sin(2 * torch.pi * (hz * t + phase))[None, None]  # noqa: E731
    like = of_fields(((wave(1, 0.0) + 1) * 127.5).round().to(torch.uint8).repeat(2, 1, 1))
    shifted, other = (like([None, None], w.repeat(2, 1, 1))["data_similarity"] for w in (wave(1, 0.3), wave(5, 0.0)))
    assert shifted > other + 0.05
