"""What features of items say as vectors: words, sentences by a text encoder, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from afresh.core import UserError
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.item_vectors import FeatureVectors, fit_features, load_features
from afresh.storage.tensor_file import read_tensors
from tests.data.tiny_encoder import CAPTIONS, tiny


def alike(features: FeatureVectors, catalogue: Catalogue) -> np.ndarray:
    vectors = features.of(catalogue)
    return np.asarray(vectors @ vectors.T)


def kept(features: FeatureVectors, folder: Path) -> FeatureVectors:
    features.save(folder)
    save_file(features.tensors(), folder / "tensors")
    return load_features(folder, read_tensors(folder / "tensors"))


def table(folder: Path | None = None, **columns: Sequence[object]) -> Catalogue:
    size = len(next(iter(columns.values())))
    return Catalogue(tuple(map(str, range(size))), np.ones(size, dtype=np.int64), columns, folder)


def test_items_with_the_same_words_are_alike_and_one_without_is_like_none() -> None:
    catalogue = table(kind=["red chair", "red chair", "oak table", None], price=[1, 1, 9, None])
    features, _ = fit_features(catalogue)
    found = alike(features, catalogue)
    assert found[0, 1] == pytest.approx(1) and found[0, 2] == 0 and not found[3].any()
    assert catalogue.describe("kind") == "kind (words, of 3 items)"
    assert table(price=list(range(30))).describe("price") == "price (numbers, by tenths)"


def test_many_words_become_fewer_directions_in_which_related_ones_are_near() -> None:
    rng = np.random.default_rng(0)
    groups = [[f"w{g}x{i}" for i in range(60)] for g in range(4)]
    words = [" ".join(rng.choice(groups[i % 4], 8)) for i in range(400)]
    catalogue = table(words=words)
    features, _ = fit_features(catalogue)
    found = alike(features, catalogue)
    assert features.width == 128
    assert found[0, 4::4].mean() > 3 * abs(found[0, 1::4].mean())


def test_sentences_are_encoded_by_a_text_encoder_if_one_is_named(tmp_path: Path) -> None:
    catalogue = table(title=[*CAPTIONS, None])
    features, notes = fit_features(catalogue, str(tiny(tmp_path / "encoder")))
    assert features.texts is not None and features.width > 12 and "sentences in title" in notes[0]
    (tmp_path / "kept").mkdir()
    assert np.allclose(alike(kept(features, tmp_path / "kept"), catalogue), alike(features, catalogue), atol=1e-5)
    with pytest.raises(UserError, match="no column of items holds any"):
        fit_features(table(colour=["red", "blue"]), str(tmp_path / "encoder"))


def test_pictures_that_a_column_names_are_looked_at_and_the_names_are_no_words(tmp_path: Path) -> None:
    names: list[object] = []
    for i in range(12):
        Image.new("RGB", (20, 30), ("red", "blue")[i % 2]).save(tmp_path / f"{i}.png")
        names.append(f"{i}.png")
    (tmp_path / "12.png").write_bytes(b"no picture")
    catalogue = table(tmp_path, photo=[*names, "12.png", "13.png", "../14.png", None])
    features, notes = fit_features(catalogue)
    found = alike(features, catalogue)
    assert found[0, 2] == pytest.approx(1, abs=1e-4) and found[0, 1] < 0 and not found[12:].any()
    assert not features.names and notes[-1] == "12 pictures named in photo could be read, of 15"
    (tmp_path / "kept").mkdir()
    assert np.allclose(alike(kept(features, tmp_path / "kept"), catalogue), found, atol=1e-5)
