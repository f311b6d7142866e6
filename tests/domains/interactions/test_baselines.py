"""Each baseline against its definition."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.interactions.baselines import ease, ials, incidence, item_knn, popularity
from afresh.domains.interactions.ranking import Scorer

Baseline = Callable[..., Scorer]

ITEMS = 12


def drawn(users: int = 60, seed: int = 0) -> list[np.ndarray]:
    """Histories of two tastes: items 0 to 5, and 6 to 11."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(2, 6, users)
    return [generator.permutation(6)[:n] + 6 * int(generator.integers(2)) for n in sizes]


def needs_implicit(baseline: Baseline) -> None:
    if baseline is ials:
        pytest.importorskip("implicit", reason="implicit is not installed: pip install 'afresh[recommend]'")


@pytest.mark.parametrize("baseline", [popularity, item_knn, ease, ials], ids=lambda baseline: baseline.__name__)
def test_every_baseline_scores_any_history(baseline: Baseline) -> None:
    needs_implicit(baseline)
    histories = drawn()
    scorer = baseline(histories, ITEMS)
    scores = scorer([histories[0], np.array([11, 3, 3]), np.array([], np.int64)])
    assert scores.shape == (3, ITEMS) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert np.array_equal(
        scores,
        baseline(histories, ITEMS)([histories[0], np.array([11, 3, 3]), np.array([], np.int64)]),
    )
    # A user who was never seen has the scores of one who was, and an event that is repeated counts once.
    assert scores[:1] == pytest.approx(scorer([histories[0].copy()]), abs=1e-5)
    assert scores[1:2] == pytest.approx(scorer([np.array([3, 11])]), abs=1e-5)


@pytest.mark.parametrize("baseline", [item_knn, ease, ials], ids=lambda baseline: baseline.__name__)
def test_taste_is_found(baseline: Baseline) -> None:
    needs_implicit(baseline)
    scores = baseline(drawn(), ITEMS)([np.array([0, 1]), np.array([6, 7])])
    assert scores[0, 2:6].min() > scores[0, 6:].max() and scores[1, 8:].min() > scores[1, :6].max()


def test_popularity_by_hand() -> None:
    histories = [np.array([0, 1]), np.array([0, 2]), np.array([0])]
    every = popularity(histories, 4)([np.array([3])])
    assert every.tolist() == [[3, 1, 1, 0]]


@pytest.mark.parametrize(("neighbours", "shrink"), [(3, 0.0), (2, 10.0), (100, 1.0)])
def test_neighbours_equal_brute_force(neighbours: int, shrink: float) -> None:
    histories = drawn(40, 1)
    x = incidence(histories, ITEMS).toarray().astype(np.float64)
    both = x.T @ x
    want = np.zeros((ITEMS, ITEMS))
    for item in range(ITEMS):
        similar = {
            j: both[item, j] / (np.sqrt(both[item, item] * both[j, j]) + shrink)
            for j in range(ITEMS)
            if j != item and both[item, j]
        }
        for j in sorted(similar, key=lambda j: (-similar[j], j))[:neighbours]:
            want[j, item] = similar[j]
    found = item_knn(histories, ITEMS, neighbours=neighbours, shrink=shrink)(histories)
    assert found == pytest.approx(x @ want, abs=1e-5)


@pytest.mark.parametrize("regularisation", [0.5, 20.0])
def test_ease_is_the_optimum_under_its_constraint(regularisation: float) -> None:
    histories = drawn(50, 2)
    x = incidence(histories, ITEMS).toarray().astype(np.float64)
    weights = ease(histories, ITEMS, regularisation=regularisation)([np.array([i]) for i in range(ITEMS)])
    assert (np.diag(weights) == 0).all()
    gradient = x.T @ (x @ weights - x) + regularisation * weights  # zero but on the diagonal, which is held at zero
    assert gradient[~np.eye(ITEMS, dtype=bool)] == pytest.approx(0, abs=1e-4)


def test_ease_says_what_it_would_hold() -> None:
    with pytest.raises(UserError, match=r"50,000 items need 20 GB, and at most 20,000 items are accepted"):
        ease(drawn(), 50_000)
    with pytest.raises(UserError, match="must be above 0"):
        ease(drawn(), ITEMS, regularisation=0)


def test_ials_solves_for_the_factors_of_a_history() -> None:
    """The factors w of a history S solve (H'H + r + (a - 1) sum of h h') w = a sum of h. With K = H (H'H + r)^-1 H',
    its scores are a K[:, S] (1 + (a - 1) K[S, S])^-1 1; those of single items give K."""
    pytest.importorskip("implicit", reason="implicit is not installed: pip install 'afresh[recommend]'")
    alpha = 5.0
    scorer = ials(drawn(80, 3), ITEMS, factors=4, alpha=alpha, regularisation=2.0)
    single = scorer([np.array([i]) for i in range(ITEMS)]).astype(np.float64)
    own = np.diag(single) / (alpha - (alpha - 1) * np.diag(single))
    kernel = (single * (1 + (alpha - 1) * own)[:, None] / alpha).T
    assert np.linalg.svd(kernel)[1][4:] == pytest.approx(0, abs=1e-5)  # as many factors as were asked for
    history = np.array([0, 1, 7])
    inner = np.eye(3) + (alpha - 1) * kernel[np.ix_(history, history)]
    want = alpha * kernel[:, history] @ np.linalg.solve(inner, np.ones(3))
    assert scorer([history])[0] == pytest.approx(want, abs=1e-4)
    assert (scorer([np.array([], np.int64)]) == 0).all()


def test_without_implicit_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(UserError, match=r"pip install 'afresh\[recommend\]'"):
        ials(drawn(), ITEMS)


def test_items_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match="hold items 0 to 12, but the catalogue has 0 to 11"):
        incidence([np.array([0, 12])], ITEMS)
