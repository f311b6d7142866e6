"""Surrogates say as much as they know: their intervals hold, their choice is told, and bad columns are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from afresh.core import Descriptors, ItemKind, UserError
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.surrogate import model as surrogates
from afresh.engine.alignment.surrogate.model import (
    FOREST,
    GAUSSIAN,
    calibrated,
    fit_surrogate,
    log_score,
    normal_scores,
    widened,
)

POINT = dataclasses.replace(
    TEXT,
    name="point",
    plural="points",
    digest=repr,
    descriptors=Descriptors(lambda points: np.array(points, dtype=np.float64).reshape(len(points), -1)),
)


def points(n: int, seed: int) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.random.default_rng(seed).random((n, 3)).tolist()]


def truth(items: Any, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    x = np.array(items)
    return np.sin(4 * x[:, 0]) + x[:, 1] ** 2 + noise * np.random.default_rng(seed).standard_normal(len(x))


@pytest.mark.parametrize(("n", "noise"), [(12, 0.0), (40, 0.2), (150, 0.05)])
def test_intervals_hold_what_they_say(n: int, noise: float) -> None:
    inside = []
    for seed in range(6):
        items, new = points(n, seed), points(200, 100 + seed)
        model = fit_surrogate(POINT, items, truth(items, noise, seed).tolist())
        found = model.predict(model.describe(new))
        values = truth(new, noise, 50 + seed)
        inside.append(np.mean((found.low <= values) & (values <= found.high)))
    assert 0.8 < np.mean(inside) <= 1.0


def test_the_better_model_is_taken_and_said() -> None:
    items = points(210, 1)
    steps = [float(x[0] > 0.5) * 4 + float(x[1] > 0.3) * 2 for x in items]
    assert fit_surrogate(POINT, items, steps).quality.model == FOREST
    smooth = fit_surrogate(POINT, items, truth(items).tolist())
    assert smooth.quality.model == GAUSSIAN and smooth.quality.other is not None and smooth.quality.useful
    assert f"chosen over a {FOREST}" in str(smooth.quality)


@pytest.mark.slow
def test_of_few_values_there_is_one_model_and_of_many_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Gaussian process would be the better one of all of these, and of many it takes too long."""
    monkeypatch.setattr(surrogates, "COMPARED", 40)
    monkeypatch.setattr(surrogates, "MANY", 50)
    found = {n: fit_surrogate(POINT, points(n, 1), truth(points(n, 1)).tolist()).quality for n in (39, 40, 50, 51)}
    assert [found[n].model for n in found] == [GAUSSIAN, GAUSSIAN, GAUSSIAN, FOREST]
    assert [n for n in found if found[n].other is not None] == [40, 50]


def test_ranks_do_not_depend_on_the_scale() -> None:
    items, new = points(60, 4), points(40, 5)
    values = truth(items)
    plain = fit_surrogate(POINT, items, values.tolist()).of_ranks()
    skewed = fit_surrogate(POINT, items, np.exp(6 * values).tolist()).of_ranks()
    rows = plain.describe(new)
    np.testing.assert_array_equal(plain.predict(rows).mean, skewed.predict(rows).mean)
    assert np.corrcoef(plain.predict(rows).mean, truth(new))[0, 1] > 0.95


def test_scores_are_quantiles_of_a_normal_distribution() -> None:
    np.testing.assert_allclose(normal_scores(np.array([5.0, -1.0, 7.0])), [0, -0.967422, 0.967422], atol=1e-6)
    np.testing.assert_allclose(normal_scores(np.array([2.0, 2.0, 9.0, 0.0])), [0, 0, 1.150349, -1.150349], atol=1e-6)


def test_noise_alone_is_said_to_be_useless() -> None:
    items = points(60, 2)
    values = np.random.default_rng(3).standard_normal(60)
    assert not fit_surrogate(POINT, items, values.tolist()).quality.useful


def test_values_of_one_item_are_averaged() -> None:
    items = points(20, 4)
    model = fit_surrogate(POINT, items + items[:5] * 3, [*truth(items), *(truth(items[:5] * 3) + 0.4)])
    assert len(model.known) == 20 and model.counts[:5].tolist() == [4.0] * 5
    np.testing.assert_allclose(model.values[:5], truth(items[:5]) + 0.3)


def test_what_is_unlike_everything_is_outside() -> None:
    model = fit_surrogate(POINT, points(50, 5), truth(points(50, 5)).tolist())
    found = model.predict(np.array([[0.5, 0.5, 0.5], [9.0, 9.0, 9.0]]))
    assert found.similarity[0] > model.domain > found.similarity[1]
    assert found.sd[1] > found.sd[0]


def test_columns_of_which_nothing_can_be_learnt_are_refused() -> None:
    assert len(fit_surrogate(POINT, points(3, 0), [1.0, 2.0, 4.0]).known) == 3
    with pytest.raises(UserError, match=r"needs 3 different points.*Given: 2"):
        fit_surrogate(POINT, points(2, 0), [1.0, 2.0])
    with pytest.raises(UserError, match="needs 3 different points"):
        fit_surrogate(POINT, points(1, 0) * 5, [1.0, 2.0, 3.0, 4.0, 5.0])
    with pytest.raises(UserError, match="All 9 points have the value 2"):
        fit_surrogate(POINT, points(9, 0), [2.0] * 9)
    bare: ItemKind = dataclasses.replace(POINT, descriptors=None)
    with pytest.raises(UserError, match="have no descriptors"):
        fit_surrogate(bare, points(9, 0), list(range(9)))


def test_intervals_follow_how_past_predictions_held() -> None:
    items = points(40, 8)
    model = fit_surrogate(POINT, items, truth(items, 0.2).tolist())
    good = [(0.0, -1.6448536, 1.6448536, float(z)) for z in np.random.default_rng(9).standard_normal(100)]
    bad = [(m, low, high, 3 * z) for m, low, high, z in good]
    assert widened(model, bad[:10]).scale == model.scale
    assert widened(model, good).scale == pytest.approx(model.scale, rel=0.15)
    assert widened(model, [(m, low, high, z / 2) for m, low, high, z in good]).scale == model.scale
    worse = [(m, low, high, 1.5 * z) for m, low, high, z in good]
    assert widened(model, worse).scale == pytest.approx(1.5 * widened(model, good).scale, rel=0.15)
    assert widened(model, bad).scale == pytest.approx(2 * model.scale)


def test_one_value_may_differ_from_all_others() -> None:
    items = points(20, 6)
    model = fit_surrogate(POINT, items, [1.0] * 19 + [2.0])
    found = model.predict(model.describe(points(5, 7)))
    assert np.isfinite([found.mean, found.low, found.high]).all() and (found.low < found.high).all()


def test_the_log_score_is_the_density_under_intervals_that_hold() -> None:
    """Errors that are all e have intervals of 90% that end at e: normal densities of deviation e / 1.645. Of two
    forecasts with the same errors, the one that knows where they are large has the higher score."""
    for e, variance in ((1.2, 0.7), (2.0, 1.0)):
        errors = np.array([e, -e] * 10)
        sd = e / 1.6448536
        density = np.exp(-0.5 * (e / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
        assert log_score(errors, np.zeros(20), np.full(20, variance)) == pytest.approx(np.log(density))
    errors = np.r_[np.full(50, 0.1), np.full(50, 1.0)] * np.random.default_rng(0).standard_normal(100)
    knows, does_not = np.r_[np.full(50, 0.01), np.full(50, 1.0)], np.full(100, 0.5)
    assert log_score(errors, np.zeros(100), knows) > log_score(errors, np.zeros(100), does_not) + 0.3


def test_the_factor_is_the_conformal_quantile() -> None:
    residuals = np.arange(1, 20) / 10
    assert calibrated(residuals) * 1.6448536 == pytest.approx(1.8)
    assert calibrated(residuals[:4]) * 1.6448536 == pytest.approx(0.8225, abs=1e-3)  # of too few: not below one half
