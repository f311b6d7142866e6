"""The posterior against the formulas written out, and what it does far away."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.engine.alignment.surrogate import gaussian_process
from afresh.engine.alignment.surrogate.likeness import by_distance, by_tanimoto, tanimoto
from afresh.engine.alignment.surrogate.model import fit_forest

RNG = np.random.default_rng(0)


def test_the_posterior_is_that_of_its_covariance() -> None:
    rows, new = RNG.random((30, 3)), RNG.random((4, 3))
    values = np.sin(3 * rows[:, 0]) + rows[:, 1] + 5
    counts = np.where(np.arange(30) < 10, 4.0, 1.0)
    likeness = by_distance(rows)
    model = gaussian_process.fit(rows, values, counts, likeness)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return model.signal * likeness.kernel(a, b, model.shape)

    inverse = np.linalg.inv(kernel(rows, rows) + np.diag(model.noise / counts))
    one = np.ones(30)
    mean = one @ inverse @ values / (one @ inverse @ one)
    cross = kernel(new, rows)
    lacking = 1 - cross @ inverse @ one
    expected = kernel(new, new) - cross @ inverse @ cross.T + np.outer(lacking, lacking) / (one @ inverse @ one)
    found, covariance = model.posterior(new)
    np.testing.assert_allclose(found, mean + cross @ inverse @ (values - mean), rtol=1e-4)
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-5)
    alone, variance = model.predict(new)
    np.testing.assert_allclose(alone, found)
    np.testing.assert_allclose(variance, covariance.diagonal(), rtol=1e-6, atol=1e-9)


def test_noise_is_told_from_signal() -> None:
    rows = np.repeat(RNG.random((60, 2)), 1, 0)
    smooth = rows @ np.array([1.0, -2.0])
    clean = gaussian_process.fit(rows, smooth, np.ones(60), by_distance(rows))
    noisy = gaussian_process.fit(rows, smooth + 0.3 * RNG.standard_normal(60), np.ones(60), by_distance(rows))
    assert clean.noise < 1e-3 < 0.04 < noisy.noise < 0.2


def test_units_do_not_matter_and_values_may_be_equal() -> None:
    rows, new = RNG.random((20, 2)), RNG.random((3, 2))
    values = rows @ np.array([1.0, -2.0]) + 0.1 * RNG.standard_normal(20)
    plain = gaussian_process.fit(rows, values, np.ones(20), by_distance(rows))
    small = gaussian_process.fit(rows, 5 + 1e-9 * values, np.ones(20), by_distance(rows))
    np.testing.assert_allclose((small.predict(new)[0] - 5) * 1e9, plain.predict(new)[0], rtol=1e-4)
    np.testing.assert_allclose(small.predict(new)[1] * 1e18, plain.predict(new)[1], rtol=1e-4)
    level = gaussian_process.fit(rows, np.full(20, 3.0), np.ones(20), by_distance(rows))
    np.testing.assert_allclose(level.predict(new)[0], 3.0)
    assert (level.predict(new)[1] > 0).all()


def test_parts_that_add_up_are_learnt_beyond_the_data() -> None:
    rows = RNG.integers(0, 4, (40, 6)).astype(float)
    values = rows @ np.arange(6.0)
    model = gaussian_process.fit(rows, values, np.ones(40), by_tanimoto(rows))
    mean, variance = model.predict(np.full((1, 6), 8.0))
    assert mean[0] > values.max() and abs(mean[0] - 120) < 3 * np.sqrt(variance[0] + model.noise)


def test_tanimoto_is_positive_definite_and_between_zero_and_one() -> None:
    rows = RNG.poisson(0.5, (50, 20)).astype(float)
    rows[0] = 0
    found = tanimoto(rows, rows)
    assert found.min() >= 0 and found.max() <= 1 + 1e-12 and np.allclose(found.diagonal(), 1)
    assert np.linalg.eigvalsh(found).min() > -1e-9


def test_the_trees_of_a_forest_are_draws() -> None:
    rows = RNG.random((200, 4))
    values = np.where(rows[:, 0] > 0.5, 2.0, -1.0) + 0.1 * RNG.standard_normal(200)
    model = fit_forest(rows, values, np.ones(200))
    mean, covariance = model.posterior(np.array([[0.9, 0.5, 0.5, 0.5], [0.1, 0.5, 0.5, 0.5]]))
    assert mean == pytest.approx([2, -1], abs=0.3) and 0 < model.noise < 0.2
    assert covariance.shape == (2, 2) and np.linalg.eigvalsh(covariance).min() > -1e-9
