"""What the best of n costs in divergence: its closed form, and the exact divergence that it bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from afresh.core import UserError
from afresh.engine.alignment.best_of_n import best_of_n_kl


def test_the_cost_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 3 / 4)
    with pytest.raises(UserError, match="at least 1"):
        best_of_n_kl(0)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_it_is_a_bound_that_many_distinct_rewards_reach(n: int) -> None:
    """The best of n of K equally likely samples is the k-th with (k^n - (k-1)^n) / K^n: its exact KL, by the sum."""

    def exact(outcomes: int) -> float:
        k = np.arange(1.0, outcomes + 1)
        p = (k**n - (k - 1) ** n) / float(outcomes) ** n
        return float((p * np.log(p * outcomes)).sum())

    gaps = [best_of_n_kl(n) - exact(k) for k in (2, 10, 100, 3000)]
    assert all(g > 0 for g in gaps) and gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-3 * best_of_n_kl(n) + 1e-3
