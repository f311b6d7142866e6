"""Codes of items: no two items have the same, items that are alike begin alike, and new items find a place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.item_codes import (
    ItemCodes,
    assigned,
    fit_codes,
    load_codes,
    residual_centres,
    values_for,
)
from afresh.domains.interactions.item_table import ItemTable
from afresh.domains.interactions.neighbours import fit_neighbours

KINDS = ("red chair", "blue chair", "oak table", "steel lamp")


def catalogue(items: int, described: int | None = None) -> Catalogue:
    """Items of four kinds in turn, of which the last were not chosen yet."""
    what = [KINDS[i % 4] if described is None or i < described else None for i in range(items)]
    counts = np.array([1 + items - i if i < items - 4 else 0 for i in range(items)])
    return Catalogue(tuple(f"i{i}" for i in range(items)), counts, {"what": what})


def none_follow(items: int) -> ItemTable:
    return fit_neighbours([np.arange(items)], items)


def fitted(items: int = 40, count: int = 3) -> ItemCodes:
    return fit_codes(catalogue(items), none_follow(items), count)[0]


def differ(codes: np.ndarray) -> bool:
    return len(np.unique(codes, axis=0)) == len(codes)


def test_no_two_items_have_the_same_codes_and_those_that_are_alike_share_the_first() -> None:
    codes = fitted()
    assert codes.codes.shape == (40, 3) and differ(codes.codes)
    assert codes.codes.min() >= 0 and codes.codes.max() < codes.values
    lamps, chairs = codes.codes[3::4, 0], codes.codes[0::4, 0]
    assert set(lamps.tolist()).isdisjoint(chairs.tolist())
    assert np.array_equal(codes.codes, fitted().codes)  # the same again


def test_items_go_to_tokens_and_back_and_what_is_no_item_is_left_out() -> None:
    codes = fitted()
    tokens = codes.of([7, 0, 39])
    assert len(tokens) == 9 and all(t // codes.values == i % 3 for i, t in enumerate(tokens))
    assert codes.items(tokens) == [7, 0, 39]
    assert codes.items([*tokens[1:3], *tokens[:3], tokens[3], *tokens[6:]]) == [7, 39]


def test_more_items_than_a_code_has_values_may_be_exactly_alike() -> None:
    vectors = np.tile(np.array([[1.0, 0.0]], np.float32), (100, 1))
    centres = np.array([[[1, 0], [0, 1], [2, 2]], [[0, 0], [1, 1], [3, 3]]], np.float32)
    with pytest.raises(UserError, match="more than 3 codes of 3 values"):
        assigned(vectors, centres, np.empty((0, 3), np.int64))
    codes = assigned(vectors[:27], centres, np.empty((0, 3), np.int64))
    assert differ(codes) and codes.max() == 2  # every place is taken
    assert codes[0].tolist() == [0, 0, 0] and codes[9].tolist() == [1, 0, 0]


def test_new_items_get_codes_and_the_others_keep_theirs(tmp_path: Path) -> None:
    codes = fitted()
    codes.save(tmp_path)
    again = load_codes(tmp_path, 40, 3)
    assert np.array_equal(again.codes, codes.codes) and again.features.names == codes.features.names
    more = again.extended(catalogue(60), none_follow(60))
    assert differ(more.codes) and len(more.codes) == 60 and np.array_equal(more.codes[:40], codes.codes)
    assert more.codes[59, 0] in codes.codes[3::4, 0]  # another lamp


def test_an_item_of_which_nothing_is_said_is_like_those_that_are_chosen_with_it() -> None:
    table = catalogue(40)
    features = {"what": [None if i == 20 else v for i, v in enumerate(table.features["what"])]}
    with_gap = Catalogue(table.ids, table.counts, features)
    codes, _ = fit_codes(with_gap, fit_neighbours([np.array([3, 20, 7]), np.array([11, 20, 15])], 40), 3)
    assert codes.codes[20, 0] == codes.codes[3, 0]


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    plain = Catalogue(("a", "b"), np.array([2, 1]))
    with pytest.raises(UserError, match="Put a table beside it"):
        fit_codes(plain, none_follow(2), 3)
    with pytest.raises(UserError, match=r"Set `data.codes=3`"):
        fit_codes(Catalogue(tuple(map(str, range(600_000))), np.ones(600_000, int), {"p": ["x"] * 600_000}), None, 2)  # type: ignore[arg-type]
    codes = fitted()
    codes.save(tmp_path)
    with pytest.raises(UserError, match="is damaged"):
        load_codes(tmp_path, 41, 3)
    ItemCodes(np.zeros_like(codes.codes), codes.centres, codes.features).save(tmp_path)
    with pytest.raises(UserError, match="two items have the same"):
        load_codes(tmp_path, 40, 3)


def test_a_code_has_more_values_for_larger_catalogues_and_centres_repeat_where_few_differ() -> None:
    assert [values_for(n) for n in (2, 100, 12_000, 10**7)] == [8, 32, 256, 1024]
    centres = residual_centres(np.eye(3, dtype=np.float32).repeat(2, 0), 2, 8, 0)
    assert centres.shape == (2, 8, 3) and np.allclose(centres[1], 0, atol=1e-6)
