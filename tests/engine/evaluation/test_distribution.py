"""Distances between samples against closed forms, brute force and constructed sets."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from afresh.engine.evaluation.distribution import (
    density_coverage,
    distances,
    frechet,
    kid,
    neighbour_radius,
    precision_recall,
    two_sample_linear,
)
from afresh.engine.evaluation.estimate import jackknife, mean, ratio, share


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """Rows whose sample mean is exactly 0 and whose sample covariance is exactly the identity."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T


def test_frechet_of_exact_gaussians() -> None:
    # Commuting covariances: |m|^2 + sum (s - s')^2.
    x = whitened(200, 4, 0) * np.array([1.0, 2.0, 3.0, 0.5])
    y = whitened(300, 4, 1) * np.array([2.0, 2.0, 1.0, 0.5]) + np.array([1.0, -2.0, 0.0, 0.0])
    assert frechet(x, y).value == pytest.approx(5.0 + 1.0 + 4.0, rel=1e-9)
    assert frechet(x, x).value == pytest.approx(0.0, abs=1e-9)


def test_frechet_matches_the_matrix_root_when_covariances_do_not_commute() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(500, 6)) @ generator.normal(size=(6, 6))
    y = generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6)) + 1
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    gap = x.mean(0) - y.mean(0)
    want = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    estimate = frechet(x, y)
    assert estimate.value == pytest.approx(want, rel=1e-8)
    assert estimate.low < estimate.value < estimate.high and estimate.note == ""


def test_frechet_shrinks_and_says_so_when_rows_are_few() -> None:
    generator = np.random.default_rng(3)
    estimate = frechet(generator.normal(size=(50, 60)), generator.normal(size=(50, 60)))
    assert np.isfinite(estimate.value) and "Ledoit" in estimate.note and "N = 50 <= D = 60" in estimate.note


def test_frechet_interval_covers_the_limit() -> None:
    # Shifted unit Gaussians in 2 dimensions: the distance is 1, its bias at N = 400 about 0.01.
    covered = 0
    for seed in range(40):
        g = np.random.default_rng(seed)
        estimate = frechet(g.normal(size=(400, 2)), g.normal(size=(400, 2)) + np.array([1.0, 0.0]))
        covered += estimate.low <= 1.0 <= estimate.high
    assert covered >= 34


def brute_kid(x: np.ndarray, y: np.ndarray) -> float:
    k = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kid_equals_brute_force() -> None:
    g = np.random.default_rng(4)
    for n, m in ((45, 61), (5, 7)):
        x, y = g.normal(size=(n, 3)), g.normal(size=(m, 3)) + 0.5
        assert kid(x, y).value == pytest.approx(brute_kid(x, y), rel=1e-10)


def test_kid_is_unbiased_and_its_interval_holds() -> None:
    estimates = []
    for seed in range(200):
        g = np.random.default_rng(seed)
        estimates.append(kid(g.normal(size=(60, 5)), g.normal(size=(60, 5))))
    values = np.array([f.value for f in estimates])
    assert abs(values.mean()) < 3 * values.std() / 200**0.5 and (values < 0).any()
    assert np.mean([f.low <= 0 <= f.high for f in estimates]) > 0.88


def test_precision_and_recall_on_sets_with_known_answers() -> None:
    g = np.random.default_rng(6)
    real = np.concatenate([g.uniform(size=(100, 2)), g.uniform(size=(100, 2)) + 10])
    half = g.uniform(size=(100, 2))  # one of the two modes
    # All fakes are near reals; only the first mode's reals are near fakes.
    p, r = precision_recall(real, half)
    assert p.value > 0.95 and 0.45 < r.value <= 0.5
    outside = np.concatenate([half, g.uniform(size=(100, 2)) + 100])
    p, r = precision_recall(real, outside)
    assert 0.45 < p.value <= 0.5 and 0.45 < r.value <= 0.5
    p, r = precision_recall(real, real)
    assert p.value == r.value == 1.0 and p.high == 1.0 and p.low > 0.97


def test_density_and_coverage_on_sets_with_known_answers() -> None:
    line = np.arange(10.0)[:, None]  # interior balls of k = 2 have radius 1, the two end balls radius 2
    density, coverage = density_coverage(line, np.array([[5.0], [100.0], [200.0], [5.0]]), k=2)
    # 5.0 lies in the balls of 4, 5 and 6: 3 of them, twice; over k M = 8. Three of ten balls are filled.
    assert density.value == pytest.approx(6 / 8) and coverage.value == pytest.approx(0.3)
    g = np.random.default_rng(7)
    density, coverage = density_coverage(g.normal(size=(1500, 3)), g.normal(size=(1500, 3)))
    assert abs(density.value - 1) < 0.06 and abs(coverage.value - (1 - 0.5**5)) < 0.03


def test_radius_and_distances() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert distances(x, x)[0].tolist() == [0.0, 5.0, 1.0]
    assert neighbour_radius(x, 1)[0] == 1.0 and neighbour_radius(x, 2)[0] == 5.0
    with pytest.raises(ValueError, match="3 nearest"):
        precision_recall(x, x)


def test_two_samples() -> None:
    g = np.random.default_rng(8)
    x, y, far = g.normal(size=(200, 5)), g.normal(size=(260, 5)), g.normal(size=(200, 5)) + 4
    same, apart = two_sample_linear(x, y, seed=0), two_sample_linear(x, far, seed=0)
    assert same.low < 0.5 < same.high and same.n == 400
    assert apart.value > 0.98


def test_intervals() -> None:
    assert share(0, 20).low == 0 and share(0, 20).high == pytest.approx(0.1611, abs=1e-4)  # Wilson 1927
    assert share(10, 20).low == pytest.approx(0.2993, abs=1e-4)
    assert mean(np.array([1.0, 3.0])).value == 2
    exact = ratio(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert (exact.value, exact.low, exact.high) == (2.0, 2.0, 2.0)
    x = np.random.default_rng(10).normal(size=40)
    low, high = jackknife(float(x.mean()), [np.delete(x, i).mean() for i in range(40)])
    # For a mean the jackknife's error is the usual standard error, exactly.
    assert high - low == pytest.approx(2 * 1.959964 * x.std(ddof=1) / 40**0.5, rel=1e-6)
