"""Rates and averages against their closed forms."""

from __future__ import annotations

import pytest
import torch

from afresh.engine.training.ema import ema_decay, ema_update
from afresh.engine.training.schedule import rate, share_left


def test_the_rate_warms_up_holds_and_decays_to_its_end() -> None:
    steps, warmup, decay, final = 100, 10, 0.4, 0.05
    factors = [rate(s, steps, warmup, decay, final) for s in range(steps)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    held = [s for s in range(10, steps) if final + (1 - final) * (steps - s) / 40 >= 1]
    assert all(factors[s] == 1.0 for s in held) and held[-1] == 60
    assert factors[-1] == pytest.approx(final + (1 - final) / 40)
    drops = [a - b for a, b in zip(factors[60:-1], factors[61:], strict=True)]
    assert drops == pytest.approx([(1 - final) / 40] * len(drops))
    assert all(0 < f <= 1 for f in factors)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("warmup", [0, 1, 20])
def test_every_rate_is_positive_however_short_the_run(steps: int, decay: float, warmup: int) -> None:
    factors = [rate(s, steps, warmup, decay, 0.0) for s in range(steps)]
    assert all(0 < f <= 1 for f in factors)
    if decay == 0 and warmup <= 1:
        assert factors == [1.0] * steps


def test_half_of_an_average_is_the_last_half_life() -> None:
    """A step from 0 to 1: after one half-life of examples the average is 1/2, after three 7/8."""
    average, current = [torch.zeros(3, dtype=torch.float64)], [torch.ones(3, dtype=torch.float64)]
    keep = ema_decay(640.0, seen=1e9, batch=64)
    for k in range(1, 31):
        ema_update(average, current, keep)
        assert average[0].tolist() == pytest.approx([1 - 0.5 ** (64 * k / 640)] * 3)


def test_an_average_is_the_weighted_sum_of_all_values() -> None:
    values = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keeps = [ema_decay(100.0, seen=8.0 * (k + 1), batch=8) for k in range(20)]
    average = [torch.zeros(4, dtype=torch.float64)]
    for value, keep in zip(values, keeps, strict=True):
        ema_update(average, [value], keep)
    weights = [(1 - keeps[k]) * torch.tensor(keeps[k + 1 :]).double().prod() for k in range(20)]
    torch.testing.assert_close(average[0], sum(w * v for w, v in zip(weights, values, strict=True)))


def test_the_half_life_starts_as_a_twentieth_of_the_examples_seen() -> None:
    assert ema_decay(1000.0, seen=64, batch=64) == pytest.approx(0.5**20)
    assert ema_decay(1000.0, seen=6400, batch=64) == pytest.approx(0.5 ** (64 / 320))
    assert ema_decay(1000.0, seen=10**6, batch=64) == pytest.approx(0.5 ** (64 / 1000))
    assert ema_decay(0.0, seen=640, batch=64) == 0.0  # no average: the current weights
    assert ema_decay(1e3, seen=1, batch=10**6) == pytest.approx(0.0)


def test_the_share_that_is_left_decreases_from_where_the_number_of_steps_was_changed() -> None:
    assert share_left(5, 20, 5, 0.5) == 0.5 and share_left(20, 20, 5, 0.5) == 0
    assert share_left(11, 20, 5, 0.5) == pytest.approx(0.5 * 9 / 15)
    assert share_left(3, 12, 0, 1.0) == pytest.approx(0.75)
