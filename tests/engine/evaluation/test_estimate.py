"""Estimates that have a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from afresh.engine.evaluation.estimate import held_between


@pytest.mark.parametrize(("members", "share"), [(2, 0.9), (16, 0.9), (16, 0.5), (50, 0.9), (100, 0.8), (16, 1.0)])
def test_quantiles_of_members_hold_what_their_order_statistics_do(members: int, share: float) -> None:
    """The k-th smallest of n uniform draws is beta(k, n + 1 - k), so that the mean of a quantile between two is that of
    the two means; a truth lies below it with that chance."""
    below = [float(beta.mean(k, members + 1 - k)) for k in range(1, members + 1)]
    low, high = (float(np.interp((members - 1) * p, range(members), below)) for p in ((1 - share) / 2, (1 + share) / 2))
    assert held_between(members, share) == pytest.approx(high - low)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential", "random"])
def test_it_is_what_is_held_of_draws(draw: str) -> None:
    generator = np.random.default_rng(0)
    members, truth = getattr(generator, draw)((16, 40_000)), getattr(generator, draw)(40_000)
    low, high = np.quantile(members, (0.05, 0.95), axis=0)
    held = float(((low <= truth) & (truth <= high)).mean())
    assert held_between(16, 0.9) == pytest.approx(0.794, abs=0.001)
    assert held == pytest.approx(held_between(16, 0.9), abs=0.015)
    inside = float(((members.min(0) <= truth) & (truth <= members.max(0))).mean())
    assert inside == pytest.approx(held_between(16, 1.0), abs=0.01)
