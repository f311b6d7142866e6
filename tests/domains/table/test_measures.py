"""Measures of tables against closed forms, and against SDMetrics where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from afresh.core import Cond, Drawn, Item, registry
from afresh.domains.table.fidelity import (
    column_similarity,
    contingency_similarity,
    correlation_similarity,
    detection,
    marginals,
    pairs,
    separation,
    told_apart,
)
from afresh.domains.table.frame import Frame, frames_of, shuffled_columns
from afresh.domains.table.metrics import METRICS, estimated, privacy, usefulness
from afresh.domains.table.privacy import copies, membership, nearest
from afresh.domains.table.reading import ReadingOptions
from afresh.domains.table.row import ROW, Cell, Header, Kind, Row
from afresh.domains.table.usefulness import predicts, target_of
from afresh.engine.evaluation.study import Measurement, Study
from afresh.engine.evaluation.verdict import KnownFacts, Verdict, verdict
from tests.engine.evaluation.evidence import Evidence
from tests.engine.evaluation.test_verdict import card

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


# --------------------------------------------------------------------------- the scores of a run, and its verdict


def scored(train: list[Row], held: list[Row], drawn: list[Row]) -> Study:
    """A measurement of drawn rows."""
    items = [[Item(r) for r in rows] for rows in (train, held, drawn)]
    encoder = registry.modality("table").fit(items[0], ReadingOptions())
    splits = encoder.encode(items[0]), encoder.encode(items[1])
    samples = Drawn(splits[0].x[:1], drawn, Cond(len(drawn)))
    evidence = Evidence(encoder.space, {}, *splits, items[0], items[1], lambda n: samples, kind=ROW)
    return Study(evidence, len(drawn))


def said_of(study: Study) -> Verdict:
    scores = tuple(s for m in METRICS if m.name != "table_use" for s in m.compute(study))
    sizes = {"train_size": len(study.train_items), "heldout_size": len(study.heldout_items), "samples": study.n}
    known = KnownFacts("rows", run="runs/t")
    return verdict(Measurement(card().model_copy(update=sizes), scores, {}, ()), known)


def apart(n: int, seed: int) -> list[Row]:
    """Rows with the columns of `linked`, none of which goes with another."""
    draw = np.random.default_rng(seed)
    cells = [[r.cells[c] for r in linked(n, seed)] for c in range(4)]
    columns = {name: [column[i] for i in draw.permutation(n)] for name, column in zip("xydc", cells, strict=True)}
    return table(columns, "nncc")


@pytest.mark.parametrize("held", [20, 32])
@pytest.mark.parametrize(("model", "word"), [(linked, "good"), (apart, "noise")])
def test_few_rows_tell_little_whatever_is_drawn(held: int, model: Callable[..., list[Row]], word: str) -> None:
    found = said_of(scored(linked(64, 1), linked(held, 2), model(400, 3)))
    assert found.word in ("cannot tell", word)
    if word == "good":
        assert found.word == "cannot tell" and f"held-out rows instead of {held} settle it" in found.help
    assert said_of(scored(linked(1000, 1), linked(500, 2), model(500, 3))).word == word


def test_the_classifier_tells_few_rows_apart() -> None:
    """Columns that are drawn apart, which leaves of twenty rows do not show."""
    real, other = frames_of(linked(32, 1), apart(32, 2))
    assert detection(*told_apart(real, other)) < 0.8


def test_the_interval_of_the_classifier_is_not_narrower_than_chance() -> None:
    """The AUC of two samples of n that are alike has a deviation of sqrt((2 n + 1) / (12 n^2)): .0925 for 20."""
    alike = np.linspace(0, 1, 20)
    found = estimated(separation, alike, alike)
    assert found.value == pytest.approx(0.5) and found.high is not None and found.high >= 0.5 + 1.95 * 0.0924


def test_rows_that_repeat_training_rows_are_called_memorised() -> None:
    train, held = linked(300, 1), linked(120, 2)
    near = {s.name: s for s in privacy(scored(train, held, train[:120]))}["table_nearer"]
    assert near.value > 0.9 and near.control is not None and near.control > 0.9
    assert said_of(scored(train, held, train[:120])).word == "memorised"
    new = {s.name: s for s in privacy(scored(train, held, linked(120, 3)))}["table_nearer"]
    assert new.value == pytest.approx(0.5, abs=0.1)


def test_the_usefulness_of_rows_is_that_of_the_set_target() -> None:
    """`d` is by chance, and `c` is the sign of `x`: a target that is set is predicted, and no other."""

    def use(target: str | None) -> tuple[float, str]:
        header = Header(("x", "y", "d", "c"), ("number", "number", "category", "category"), target)
        rows = [[Row(header, r.cells) for r in linked(n, seed)] for n, seed in ((400, 1), (150, 2), (150, 3))]
        study = scored(*rows)
        return usefulness(study)[0].value, study.notes[-1]

    by_chance, note = use("d")
    assert "AUC of 'd'" in note and by_chance < 0.7
    certain, note = use(None)
    assert "AUC of 'c'" in note and certain > 0.95
    assert "R² of 'y'" in use("y")[1]


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
