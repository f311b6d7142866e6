"""The tokens of a column: what recurs comes back as it was, and what does not keeps its distribution."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.domains.table.column_code import MISSING, MOST_OWN, UNKNOWN, fit_column
from afresh.domains.table.columns import rules_of
from afresh.domains.table.row import Cell, Kind

rng = np.random.default_rng(0)
CODES = [f"{i:05d}" for i in range(3000)]
LOSSLESS: list[tuple[Kind, list[Cell]]] = [
    ("number", [1, 2, 3, None] * 10),
    ("number", [0.5, 2.25, -7.0, 1e6] * 10),
    ("category", ["a", "b", None, "c"] * 10),
    ("category", [True, False] * 20),
    ("category", rng.permutation(CODES).tolist()),  # all rare: a group and a place in it
    ("date", ["2020-02-29", "1969-12-31", None] * 10),
    ("date", ["2020-02-29 13:00:00", "1950-01-01 00:00:01"] * 10),
    ("date", ["2020-02-29 13:00:00+00:00", "1950-01-01 00:00:01+00:00"] * 10),
    ("date", ["2020-02-29 13:00:00.250", "2020-02-29 13:00:00.500"] * 10),
]


@pytest.mark.parametrize(("kind", "cells"), LOSSLESS, ids=range(len(LOSSLESS)))
def test_what_recurs_and_every_category_comes_back_as_it_was(kind: Kind, cells: list[Cell]) -> None:
    code = fit_column("x", kind, cells)
    tokens = code.encode(cells)
    assert tokens.shape == (len(cells), len(code.sizes))
    assert (tokens >= 0).all() and (tokens < np.array(code.sizes)).all()
    back = code.decode(tokens, np.full(len(cells), 0.3))
    assert back == cells and [type(b) for b in back] == [type(c) for c in cells]


def numbers(values: np.ndarray, decimals: int) -> list[Cell]:
    return [round(float(v), decimals) for v in values]


@pytest.mark.parametrize("decimals", [1, 4])
def test_the_distribution_of_numbers_is_kept(decimals: int) -> None:
    """Kolmogorov and Smirnov: values of the same cells are the same distribution up to 1 / cells."""
    cells = numbers(rng.lognormal(3, 1, 8000), decimals)
    code = fit_column("x", "number", cells)
    back = code.decode(code.encode(cells), rng.random(len(cells)))
    a, b = (np.sort(np.array(v, np.float64)) for v in (cells, back))
    assert np.abs(np.searchsorted(a, a, "right") - np.searchsorted(b, a, "right")).max() / len(a) < 0.01
    assert min(back) >= a[0] and max(back) <= a[-1]  # type: ignore[type-var]
    assert all(v == round(float(v), decimals) for v in back)  # type: ignore[arg-type]


def test_numbers_that_do_not_recur_are_not_repeated_on_purpose() -> None:
    cells: list[Cell] = [float(v) for v in rng.normal(size=4000)]
    code = fit_column("x", "number", cells)
    back = code.decode(code.encode(cells), rng.random(len(cells)))
    assert not set(back) & set(cells)


def test_whole_numbers_are_drawn_evenly_within_a_cell_and_stay_whole() -> None:
    cells: list[Cell] = [int(v) for v in rng.integers(0, 100_000, 6000)]
    code = fit_column("x", "number", cells)
    back = code.decode(code.encode(cells), rng.random(len(cells)))
    assert all(isinstance(v, int) for v in back)
    assert abs(float(np.mean(np.array(back) % 2)) - 0.5) < 0.03


def test_a_gap_between_numbers_stays_empty() -> None:
    cells = numbers(np.concatenate([rng.uniform(0, 1, 500), rng.uniform(1000, 1001, 500)]), 3)
    code = fit_column("x", "number", cells)
    back = np.array(code.decode(code.encode(cells), rng.random(len(cells))), np.float64)
    assert not ((back > 2) & (back < 999)).any()


def test_a_value_that_recurs_among_others_has_a_token_of_its_own() -> None:
    cells: list[Cell] = [0.0] * 500 + numbers(rng.lognormal(3, 1, 500), 2)
    code = fit_column("x", "number", cells)
    back = code.decode(code.encode(cells), rng.random(len(cells)))
    assert back[:500] == [0.0] * 500 and 0.0 not in back[500:]


def test_many_categories_are_all_kept() -> None:
    cells: list[Cell] = [f"often {i}" for i in range(300) for _ in range(20)] + [f"once {i}" for i in range(1000)]
    code = fit_column("x", "category", cells)
    assert len(code.own) == MOST_OWN and len(code.own) + len(code.rare) == 1300
    assert sum(code.sizes) < 450
    assert code.decode(code.encode(cells), np.zeros(len(cells))) == cells


def test_what_training_does_not_have_is_unknown_and_what_is_missing_is_missing() -> None:
    code = fit_column("x", "category", ["a", "b"] * 10)
    assert code.encode(["z", None, "a"])[:, 0].tolist() == [UNKNOWN, MISSING, 2]
    assert not code.holds("z") and not code.holds(None) and code.holds("a")


def test_a_number_beyond_training_is_in_the_nearest_cell() -> None:
    cells = numbers(rng.normal(size=1000), 3)
    code = fit_column("x", "number", cells)
    tokens = code.encode([-1e9, 1e9])
    low, high = code.decode(tokens, np.array([0.5, 0.5]))
    assert isinstance(low, float) and isinstance(high, float) and low < -1.5 and high > 1.5


@pytest.mark.parametrize("zone", ["", "+00:00"])
def test_dates_that_do_not_recur_keep_the_form_of_their_column(zone: str) -> None:
    cells: list[Cell] = [f"2020-01-{1 + i % 28:02d} {i % 24:02d}:{i % 60:02d}:{i % 59:02d}{zone}" for i in range(1500)]
    cells = list(dict.fromkeys(cells))
    code = fit_column("x", "date", cells)
    back = code.decode(code.encode(cells), rng.uniform(size=len(cells)))
    assert len(set(back) - set(cells)) > 100
    assert all(str(cell).endswith(zone) and len(str(cell)) == len(str(cells[0])) for cell in back)


def test_what_determines_others_is_determined_by_none() -> None:
    """Each of three columns determines the others: the first one has both rules."""
    numbers: list[Cell] = [(7 * i) % 41 for i in range(200)]
    columns = {"a": numbers, "b": [2 * int(n) + 1 for n in numbers], "c": [3 * int(n) for n in numbers]}  # type: ignore[arg-type]
    rules = rules_of(columns, ["number"] * 3)
    assert [(r.by, r.of, r.factor, r.shift) for r in rules] == [("a", "b", 2, 1), ("a", "c", 3, 0)]


def test_of_two_that_determine_a_column_the_first_one_does() -> None:
    """Each tells two parts of every town apart, and neither follows from the other."""
    towns = ["ab"[i % 2] for i in range(80)]
    first, second = ([f"{town}{i // each % 2}" for i, town in enumerate(towns)] for each in (2, 4))
    rules = rules_of({"first": first, "second": second, "town": towns}, ["category"] * 3)
    assert [(r.by, r.of) for r in rules] == [("first", "town")]
