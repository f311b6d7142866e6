"""Folding and unfolding of patches; the diffusion Transformer: any grid, zero at first, independent rows, all weights
used."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afresh.engine.nets.dit import DiT
from afresh.engine.nets.patches import fold, grid_of, unfold


@pytest.mark.parametrize("grid", [(5,), (8,), (4, 6), (5, 7), (1, 3), (3, 4, 5)])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_unfold_inverts_fold(grid: tuple[int, ...], patch: int) -> None:
    x = torch.arange(2.0 * 3 * torch.tensor(grid).prod()).view(2, 3, *grid)
    y = fold(x, patch)
    assert y.shape == (2, 3 * patch ** len(grid), *grid_of(grid, patch))
    assert torch.equal(unfold(y, patch, grid), x)


def test_a_patch_holds_neighbours() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert fold(x, 2)[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def made(grid: tuple[int, ...], patch: int = 2) -> DiT:
    """A network without zero weights."""
    torch.manual_seed(0)
    net = DiT(grid, 2, 2, 16, 2, 2, 6, patch)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return net


@pytest.mark.parametrize("grid", [(5,), (1,), (8, 8), (7, 10), (3, 4, 5)])
@pytest.mark.parametrize("patch", [1, 2])
def test_any_grid(grid: tuple[int, ...], patch: int) -> None:
    x = torch.randn(3, 2, *grid)
    y = made(grid, patch)(x, torch.randn(3, 6))
    assert y.shape == x.shape and bool(torch.isfinite(y).all())


def test_a_new_network_returns_zero() -> None:
    assert not DiT((8, 8), 1, 1, 16, 2, 2, 6, 2)(torch.randn(2, 1, 8, 8), torch.randn(2, 6)).any()


def test_every_parameter_is_reached() -> None:
    net = made((8, 8))
    net(torch.randn(2, 2, 8, 8), torch.randn(2, 6)).square().sum().backward()
    assert not [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_rows_of_a_batch_are_independent() -> None:
    net = made((6, 5)).eval()
    x, e = torch.randn(4, 2, 6, 5), torch.randn(4, 6)
    torch.testing.assert_close(net(x[2:3], e[2:3]), net(x, e)[2:3], rtol=0, atol=1e-5)


def test_patches_attend_to_one_another() -> None:
    net, x = made((8, 8)), torch.randn(1, 2, 8, 8)
    moved = x.clone()
    moved[..., 0, 0] += 1
    e = torch.zeros(1, 6)
    assert bool((net(moved, e) - net(x, e))[..., 7, 7].abs().gt(1e-6).any())


def test_a_width_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        DiT((8, 8), 1, 1, 10, 1, 4, 6, 2)
