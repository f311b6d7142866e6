"""Measures of tables against closed forms, and against SDMetrics where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from afresh.core import Cond, Drawn, Examples, Item, Score, Space
from afresh.domains.table.fidelity import (
    column_similarity,
    contingency_similarity,
    correlation_similarity,
    detection,
    marginals,
    pairs,
    told_apart,
)
from afresh.domains.table.frame import Frame, frames_of, shuffled_columns
from afresh.domains.table.metrics import judge_table, privacy, usefulness
from afresh.domains.table.privacy import copies, membership, nearest
from afresh.domains.table.row import ROW, Cell, Header, Kind, Row
from afresh.domains.table.usefulness import predicts, target_of
from afresh.evaluation.study import Study
from tests.evaluation.evidence import Evidence

rng = np.random.default_rng(0)


def table(columns: dict[str, Sequence[Cell]], kinds: str) -> list[Row]:
    words: dict[str, Kind] = {"n": "number", "c": "category", "d": "date"}
    header = Header(tuple(columns), tuple(words[k] for k in kinds))
    return [Row(header, cells) for cells in zip(*columns.values(), strict=True)]


def floats(values: np.ndarray) -> list[Cell]:
    return [float(v) for v in values]


def linked(n: int, seed: int) -> list[Row]:
    """y is x with noise; c is the sign of x; d is by chance."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=n)
    columns: dict[str, Sequence[Cell]] = {
        "x": floats(x),
        "y": floats(x + 0.1 * draw.normal(size=n)),
        "d": [str(v) for v in draw.integers(0, 4, n)],
        "c": ["up" if v > 0 else "down" for v in x],
    }
    return table(columns, "nncc")


def frames(*seeds: int, n: int = 1500) -> list[Frame]:
    return frames_of(*(linked(n, seed) for seed in seeds))


def test_kolmogorov_smirnov_and_total_variation_of_known_columns() -> None:
    a, b = np.array([0.0, 1, 2, 3]), np.array([2.0, 3, 4, 5])
    assert column_similarity(a, b, 0) == 0.5
    assert column_similarity(a, a + 10, 0) == 0
    assert column_similarity(np.array([0.0, 0, 1, 2]), np.array([0.0, 1, 1, 1]), 3) == 0.5
    half = np.array([0.0, np.nan, 1, np.nan])
    assert column_similarity(half, np.array([0.0, 1, 0, 1]), 0) == 0.5


def test_correlations_and_contingency_tables_of_known_pairs() -> None:
    x = np.arange(10.0)
    assert correlation_similarity((x, x), (x, -x)) == pytest.approx(0)
    assert correlation_similarity((x, 2 * x), (x, 3 * x)) == pytest.approx(1)
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert contingency_similarity((a, a), (a, b), (2, 2)) == 0.5


def test_columns_that_are_drawn_apart_have_the_marginals_alone() -> None:
    one, two = frames(1, 2)
    apart = shuffled_columns(two)
    assert marginals(one, apart) == pytest.approx(marginals(one, two)) and marginals(one, two) > 0.95
    assert pairs(one, two) > 0.95 > 0.9 > pairs(one, apart)


def test_a_classifier_knows_columns_drawn_apart_and_not_another_sample() -> None:
    one, two = frames(1, 2)
    assert detection(*told_apart(one, two)) > 0.85
    assert detection(*told_apart(one, shuffled_columns(two))) < 0.1
    assert detection(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 0
    assert detection(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 1


def test_what_is_predicted_and_how_well() -> None:
    one, two = frames(1, 2)
    assert target_of(one) == 3 and target_of(one, "y") == 1
    assert predicts(one, two, 3) > 0.99
    assert predicts(shuffled_columns(one), two, 3) == pytest.approx(0.5, abs=0.15)
    assert predicts(one, two, 1) > 0.95 and predicts(shuffled_columns(one), two, 1) < 0.1


def test_distances_are_gower_s() -> None:
    known = table({"x": [0.0, 1.0, 2.0, 3.0], "c": ["a", "a", "b", "b"]}, "nc")
    asked = table({"x": [0.0, None, 3.0], "c": ["b", "a", "b"]}, "nc")
    a, b = frames_of(known, asked)
    # Ranks of 0, 1, 2, 3 are 1/8, 3/8, 5/8, 7/8. The row without a number is 1 from each, and has the category.
    assert nearest(a, b, a).tolist() == pytest.approx([(0.5 + 0) / 2, 0.5, 0.0])


def test_an_attack_finds_those_whose_rows_are_repeated_and_nobody_else() -> None:
    members, others, fresh = frames(1, 2, 3, n=300)
    inside, outside = membership(members, members, others, members)
    assert inside.min() == 0 > outside.mean()
    inside, outside = membership(members, members, others, fresh)
    assert abs(float(inside.mean() - outside.mean())) < 0.005
    rows = linked(50, 1)
    assert copies(rows[:10] + linked(10, 2), rows) == 10


def study(drawn: Sequence[Row], target: str | None = None) -> Study:
    """Rows that a model drew, beside training and held-out rows of `linked`, of which `target` is to be predicted."""
    train, held = ([Item(row, f"row {i}") for i, row in enumerate(linked(n, s))] for n, s in ((800, 1), (400, 2)))
    header = replace(train[0].value.header, target=target)
    train = [replace(item, value=replace(item.value, header=header)) for item in train]
    none, cond = torch.zeros(len(drawn), 1), Cond(len(drawn))
    examples = (Examples(torch.zeros(len(items), 1), Cond(len(items))) for items in (train, held))
    space = Space("field", (1,))
    evidence = Evidence(space, {}, *examples, train, held, lambda n: Drawn(none, drawn, cond), kind=ROW)
    return Study(evidence, len(drawn))


def scores_of(scores: Sequence[Score]) -> dict[str, Score]:
    return {score.name: score for score in scores}


def test_rows_that_repeat_those_of_training_are_nearer_to_them_than_real_ones() -> None:
    """By chance it is one half, as of rows of the same distribution that nothing was learnt from."""
    repeated, fresh = (scores_of(privacy(study(drawn))) for drawn in (linked(800, 1)[:400], linked(400, 5)))
    assert repeated["table_nearer"].value > 0.95 and repeated["table_copies"].value == 1
    assert fresh["table_nearer"].value == pytest.approx(0.5, abs=0.06) and fresh["table_copies"].value == 0
    told = {"table_detection": Score("table_detection", 0.5, None, None, 400, "higher", 0.5, 0.9)}
    verdict = judge_table({**told, **repeated}, "rows")
    assert verdict is not None and verdict[0] == "memorised"


def test_the_column_that_is_set_is_the_one_that_is_predicted() -> None:
    """`d` is by chance, so that no table predicts it, and `c` follows from the others."""
    by_chance, follows = study(linked(400, 5), "d"), study(linked(400, 5), "c")
    (none,), (sure,) = usefulness(by_chance), usefulness(follows)
    assert none.value == pytest.approx(0.5, abs=0.1) and sure.value > 0.95
    assert "AUC of 'd'" in by_chance.notes[-1] and "AUC of 'c'" in follows.notes[-1]


def test_parity_with_sdmetrics() -> None:
    """Of tables without missing values, which SDMetrics leaves out."""
    import pandas
    from sdmetrics import column_pairs, single_column

    rows = [linked(600, 1), linked(600, 2)]
    one, two = frames_of(*rows)
    real, other = (pandas.DataFrame([r.cells for r in t], columns=list("xydc")) for t in rows)
    assert column_similarity(one.columns[0], two.columns[0], 0) == pytest.approx(
        single_column.KSComplement.compute(real["x"], other["x"])
    )
    assert column_similarity(one.columns[2], two.columns[2], 4) == pytest.approx(
        single_column.TVComplement.compute(real["d"], other["d"])
    )
    ours = correlation_similarity(one.columns[:2], two.columns[:2])  # type: ignore[arg-type]
    assert ours == pytest.approx(column_pairs.CorrelationSimilarity.compute(real[["x", "y"]], other[["x", "y"]]))
    codes = [(f.columns[2].astype(int), f.columns[3].astype(int)) for f in (one, two)]
    assert contingency_similarity(codes[0], codes[1], (4, 2)) == pytest.approx(
        column_pairs.ContingencySimilarity.compute(real[["d", "c"]], other[["d", "c"]])
    )
