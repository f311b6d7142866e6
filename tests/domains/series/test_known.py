"""What a model is told of a window: normalised by what is known, with what stands for the rest."""

from __future__ import annotations

import pytest
import torch

from afresh.core.rng import Rng
from afresh.domains.series.known import FORECAST, SCENARIO, SEASONS, Layout, hidden, part_of, seasonal

LAYOUT = Layout(channels=2, extra=1, context=12, horizon=6, period=3)


def window(seed: int = 0) -> torch.Tensor:
    return 5 + 2 * Rng(seed).normal("x", torch.arange(4), (2, 18))


def future() -> torch.Tensor:
    return (torch.arange(18) >= 12).expand(4, 2, -1)


def test_known_values_have_mean_zero_and_unit_deviation_and_stand_for_themselves() -> None:
    x, unknown = window(), future()
    part = part_of(x, ~unknown, unknown, LAYOUT.period)
    assert part.shape == (4, LAYOUT.rows, 18)
    z, base, scale = part[:, :2, :12], part[:, -4:-2], part[:, -2:]
    torch.testing.assert_close(z.mean(-1), torch.zeros(4, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(-1, correction=0), torch.ones(4, 2))
    torch.testing.assert_close(base[..., :12], x[..., :12])
    assert not scale[..., :12].any()
    torch.testing.assert_close(scale[..., 12:], x[..., :12].std(-1, correction=0)[..., None].expand(-1, -1, 6))


def test_nothing_of_the_values_that_are_not_known_is_told() -> None:
    x, unknown = window(), future()
    other = torch.where(unknown, torch.nan, x)
    told = [part_of(v, ~unknown, unknown, LAYOUT.period) for v in (x, other)]
    assert torch.equal(*told)


def test_what_is_told_moves_with_the_level_and_the_scale_of_a_window() -> None:
    x, unknown = window(), future()
    one, two = (part_of(v, ~unknown, unknown, LAYOUT.period) for v in (x, 3 * x - 7))
    torch.testing.assert_close(one[:, :-4], two[:, :-4], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(3 * one[:, -4:-2] - 7, two[:, -4:-2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(3 * one[:, -2:], two[:, -2:], atol=1e-4, rtol=1e-4)


def test_what_stands_for_a_value_is_the_mean_of_the_seasons_before() -> None:
    z = torch.arange(30.0).view(1, 1, 30)
    known = torch.ones(1, 1, 30, dtype=torch.bool)
    known[..., 27:] = False
    mean, last = seasonal(z * known, known, 3)
    wanted = torch.stack([z[0, 0, 27 + k - 3 * torch.arange(1, SEASONS + 1)].mean() for k in range(3)])
    torch.testing.assert_close(mean[0, 0, 27:], wanted)
    assert last[0, 0, 27:].tolist() == [24, 25, 26]


def test_a_gap_at_the_beginning_has_what_comes_after_and_an_empty_column_the_mean() -> None:
    z, known = torch.arange(1.0, 13.0).view(1, 1, 12), torch.ones(1, 1, 12, dtype=torch.bool)
    known[..., :3] = False
    mean, last = seasonal(z * known, known, 3)
    assert mean[0, 0, :3].tolist() == last[0, 0, :3].tolist() == [4, 5, 6]
    nothing = torch.zeros_like(known)
    assert not seasonal(z * nothing, nothing, 3)[0].any()


def test_what_is_hidden_depends_on_the_number_of_the_draw_alone() -> None:
    rng, numbers = Rng(3), torch.arange(64)
    every = hidden(LAYOUT, rng, numbers)
    torch.testing.assert_close(hidden(LAYOUT, rng, numbers[40:]), every[40:])


def test_forecasts_scenarios_and_holes_are_hidden_in_their_shares() -> None:
    found = hidden(LAYOUT, Rng(0), torch.arange(4000))
    past, later = found[..., :12].any((1, 2)), found[..., 12:].all(-1)
    forecast = ~past & later.all(1)
    scenario = ~past & later.any(1) & ~later.all(1) & ~found[..., 12:].any(-1).logical_xor(later).any(1)
    assert found.any((1, 2)).all(), "something is hidden in every window"
    # Of two columns, a scenario hides both in half of the draws.
    assert float(forecast.float().mean()) == pytest.approx(FORECAST + SCENARIO / 2, abs=0.04)
    assert float(scenario.float().mean()) > SCENARIO / 4
