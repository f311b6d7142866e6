"""What persists of a field on a ring: the estimate against closed forms, and what a network can no longer change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afresh.core import Part
from afresh.engine.nets.persistence import Persistence, bounded, energy_bounds, estimate, shells

GRIDS = ((16,), (9,), (8, 12), (6, 4, 8))


def noise(n: int, grid: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(n, 2, *grid, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(n: int, seed: int) -> Tensor:
    """Fields (n, 2, 32) of the wavenumbers 1 to 4 alone."""
    modes = torch.fft.rfft(noise(n, (32,), seed))
    modes[..., 0] = modes[..., 5:] = 0
    return torch.fft.irfft(modes, n=32)


def part(before: Tensor, after: Tensor) -> Part:
    std = float((after - before).square().mean().sqrt())
    spectrum = estimate(tuple(before.shape[2:]), zip(before.split(64), after.split(64), strict=True))
    return Part("aligned", shape=tuple(before.shape[1:]), persists=True, std=std, spectrum=spectrum)


@pytest.mark.parametrize("grid", GRIDS)
def test_an_autoregression_is_estimated(grid: tuple[int, ...]) -> None:
    before, share = noise(2000, grid, 0), torch.tensor([0.5, 0.9]).view(1, 2, *[1] * len(grid))
    found = torch.tensor(estimate(grid, [(before, share * before + 0.2 * noise(2000, grid, 1))]))
    assert found.shape == (2, int(shells(grid).max()) + 1, 2)
    torch.testing.assert_close(found[..., 0].mean(1), torch.tensor([0.5, 0.9]), atol=0.01, rtol=0)
    torch.testing.assert_close(found[..., 1], torch.full_like(found[..., 1], 0.2), atol=0.01, rtol=0)


def test_a_mode_that_decays_by_itself_needs_no_network() -> None:
    before = smooth(50, 0)
    after = 0.8 * before
    out = Persistence(part(before, after), (32,))(before.float(), torch.zeros(50, 2, 32))
    torch.testing.assert_close(out, after.float(), atol=1e-6, rtol=0)


def test_modes_without_energy_stay_without_it_whatever_the_network_adds() -> None:
    before = smooth(200, 0)
    next_state = Persistence(part(before, before + 0.1 * smooth(200, 1)), (32,))
    state = before.float()
    for step in range(20):
        state = next_state(state, noise(200, (32,), 2 + step).float())
    modes = torch.fft.rfft(state).abs()
    assert float(modes[..., 1:5].mean()) > 1
    assert float(modes[..., 5:].max()) < 1e-4 and float(modes[..., 0].max()) < 1e-4


def test_what_changes_much_is_left_to_the_network() -> None:
    before = noise(500, (16,), 0)
    given = part(before, noise(500, (16,), 1))
    change = torch.randn(3, 2, 16)
    out = Persistence(given, (16,))(torch.zeros(3, 2, 16), change)
    torch.testing.assert_close(out, given.std * change, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
def test_fields_within_the_bounds_of_training_come_back_as_they_are(grid: tuple[int, ...]) -> None:
    before, after = noise(50, grid, 0), noise(50, grid, 1)
    most, gain = energy_bounds(grid, zip(before.split(20), after.split(20), strict=True))
    assert len(most) == len(gain) == 2 and len(most[0]) == int(shells(grid).max()) + 1
    energy = after.square().flatten(2).sum(2) / before.square().flatten(2).sum(2)
    assert gain == pytest.approx(energy.amax(0).clamp_min(1).tolist())
    # By Parseval's theorem, what all shells hold of a state is its energy times the number of points.
    assert min(map(sum, most)) >= float(after.square().flatten(2).sum(2).max(0).values.min()) * before[0, 0].numel()
    more = [[2 * value for value in row] for row in most]
    assert torch.equal(bounded(after, before, more, [2 * g for g in gain], grid), after)


def test_a_wavenumber_gains_no_more_than_its_bound_and_the_others_keep_theirs() -> None:
    before, after = smooth(50, 0), smooth(50, 1)
    most, gain = energy_bounds((32,), [(before, after)])
    x = after.clone()
    x[3] += torch.cos(9 * 2 * torch.pi * torch.arange(32) / 32)  # a wavenumber that no state of training has
    out = bounded(x, 10 * before, most, gain, (32,))
    torch.testing.assert_close(out[3], after[3], atol=1e-4, rtol=0)  # but for what rounding may leave anywhere
    others = torch.arange(50) != 3
    torch.testing.assert_close(out[others], after[others], atol=1e-12, rtol=0)


def test_a_channel_gains_no_more_energy_in_a_step_than_in_training() -> None:
    before = smooth(50, 0)
    most, gain = energy_bounds((32,), [(before, 0.9 * before)])
    assert gain == (1.0, 1.0), "a system that only loses energy does not gain any"
    small = 0.1 * before
    out = bounded(1.5 * small, small, most, gain, (32,))
    torch.testing.assert_close(out, small, atol=1e-6, rtol=0)
    torch.testing.assert_close(bounded(0.8 * small, small, most, gain, (32,)), 0.8 * small)
