"""Duplicates: signatures estimate the Jaccard similarity, edited copies are found, different items are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from afresh.core import Item
from afresh.data.image.kind import IMAGE
from afresh.data.image.near_duplicates import near_images
from afresh.data.prepare import near_duplicates, near_rows
from afresh.data.text.kind import TEXT
from afresh.data.text.near_duplicates import POINTS, jaccard, near_texts, signature
from afresh.data.text.shingles import shingles, shingles_of


def prose(seed: int, words: int = 300) -> str:
    generator = np.random.default_rng(seed)
    return " ".join("".join(chr(97 + c) for c in generator.integers(0, 26, 5)) for _ in range(words))


def test_jaccard_of_known_sets() -> None:
    a, b = np.arange(0, 60, dtype=np.uint64), np.arange(30, 90, dtype=np.uint64)
    assert jaccard(a, b) == pytest.approx(30 / 90)
    assert jaccard(a, a) == 1.0
    assert jaccard(a, a[:0]) == 0.0


def test_signatures_agree_as_often_as_the_jaccard_similarity() -> None:
    generator = np.random.default_rng(0)
    shared = []
    for _ in range(60):
        pool = np.unique(generator.integers(0, 1 << 63, 3000, dtype=np.uint64) * np.uint64(2))
        a, b = np.sort(pool[generator.random(len(pool)) < 0.8]), np.sort(pool[generator.random(len(pool)) < 0.8])
        shared.append(float((signature(a) == signature(b)).mean()) - jaccard(a, b))
    # Standard error: sqrt(s (1 - s) / (60 * 120)) with s = 2/3.
    assert abs(np.mean(shared)) < 4 * (2 / 9 / (60 * POINTS)) ** 0.5


def test_shingles_ignore_case_and_white_space() -> None:
    assert np.array_equal(shingles("The  cat\n sat."), shingles("the CAT sat. "))
    assert len(shingles("")) == 0
    assert len(shingles("abc")) == 1
    assert len(shingles("one two three four five six")) == 2
    assert np.array_equal(shingles("“Don’t,” he said."), shingles("Don't he said"))


def test_signs_and_characters_without_spaces_are_words() -> None:
    assert not np.array_equal(shingles("a < b"), shingles("a > b"))
    assert len(shingles("\u65e5\u672c\u8a9e\u306e\u6587\u66f8")) == 2  # six characters


def test_texts_are_hashed_together_as_one_by_one() -> None:
    values = ["", "one", *(prose(n, n) for n in (4, 5, 6, 40)), prose(1, 60_000), "x" * 600_000, "the end"]
    for together, text in zip(shingles_of(values), values, strict=True):
        assert np.array_equal(together, shingles(text))
    words = prose(3, 50).split()
    assert len(shingles(" ".join(words))) == len({tuple(words[i : i + 5]) for i in range(46)})


def test_all_pairs_are_found() -> None:
    generator = np.random.default_rng(2)
    values = [prose(i, 120).split() for i in range(60)]
    for words in values[:60]:
        for edits in generator.integers(1, 5, 3):
            edited = list(words)
            for at in generator.integers(0, len(words), edits):
                edited[at] = "edited"
            values.append(edited)
    texts = [" ".join(words) for words in values]
    sets = shingles_of(texts)
    every = {j for j in range(len(sets)) for i in range(j) if jaccard(sets[i], sets[j]) >= 0.8}
    found = near_texts(texts)
    assert len(every) > 90 and {p.second for p in found} <= every
    assert len(found) >= 0.98 * len(every)


def test_edited_texts_are_found_and_different_texts_are_not() -> None:
    values = [prose(i) for i in range(30)]
    words = values[7].split()
    words[100] = "changed"
    values += [" ".join(words), values[9].upper()]
    pairs = near_texts(values)
    assert [(p.first, p.second) for p in pairs] == [(7, 30), (9, 31)]
    assert 0.9 < pairs[0].similarity < 1.0
    assert pairs[1].similarity == 1.0


def test_each_copy_points_to_the_earliest() -> None:
    text = prose(0)
    pairs = near_texts([prose(1), text, text + ".", text + "!"])
    assert [(p.first, p.second) for p in pairs] == [(1, 2), (1, 3)]


def scene(seed: int, side: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def test_resized_and_noisy_images_are_found() -> None:
    values = [np.asarray(scene(i, 64)) for i in range(40)]
    noisy = values[3].astype(np.int64) + np.random.default_rng(1).integers(-3, 4, values[3].shape)
    values += [np.asarray(scene(5, 48)), noisy.clip(0, 255).astype(np.uint8)]
    pairs = near_images(values)
    assert [(p.first, p.second) for p in pairs] == [(5, 40), (3, 41)]
    assert all(0.97 < p.similarity <= 1.0 for p in pairs)


def test_pages_with_other_words_are_not_the_same() -> None:
    generator = np.random.default_rng(3)
    pages = [np.full((180, 180, 1), 250, np.uint8) for _ in range(6)]
    for page in pages:
        for line in range(10, 170, 10):
            page[line : line + 6, 10:170] = np.repeat(np.where(generator.random((1, 20, 1)) < 0.6, 60, 250), 8, 1)
    assert near_images(pages) == []
    grey = np.clip(pages[2].astype(np.int64) + generator.integers(-9, 10, pages[2].shape), 0, 255).astype(np.uint8)
    assert [(p.first, p.second) for p in near_images([*pages, grey])] == [(2, 6)]


def test_flat_images_are_compared_by_brightness() -> None:
    flat = [np.full((16, 16, 1), v, np.uint8) for v in (0, 100, 200, 101)]
    assert [(p.first, p.second) for p in near_images(flat)] == [(1, 3)]
    many = [np.zeros((8, 8, 1), np.uint8)] * 700
    assert [p.first for p in near_images(many)] == [0] * 699


def test_different_digits_are_not_duplicates() -> None:
    digits = (load_digits().images * 15.9).astype(np.uint8)[..., None]
    assert len(near_images(list(digits))) < 5  # of 1,797


def test_items_are_compared_as_their_kind_compares_them() -> None:
    text, image = prose(3), np.asarray(scene(1, 32))
    texts, images = [prose(1), text, text + "?", prose(9)], [image, image.copy()]
    assert [(p.first, p.second) for p in near_duplicates([Item(t) for t in texts], TEXT)] == [(1, 2)]
    assert [(p.first, p.second) for p in near_duplicates([Item(i) for i in images], IMAGE)] == [(0, 1)]


def test_rows_of_features_that_nearly_agree_are_found() -> None:
    rows = np.random.default_rng(0).random((700, 8))
    rows[650] = rows[3] + 0.01
    rows[699] = rows[650] - 0.01
    found = near_rows(rows)
    assert [(p.first, p.second) for p in found] == [(3, 650), (3, 699)]
    assert found[0].similarity == pytest.approx(0.99) and found[1].similarity == pytest.approx(1.0)
    assert near_rows(rows[:1]) == []


def test_nothing_to_compare() -> None:
    assert near_duplicates([], TEXT) == []
    assert near_texts(["", " ", "\n"]) == []
    assert near_images([np.zeros((3, 3, 1), np.uint8)]) == []
