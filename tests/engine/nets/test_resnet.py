"""The residual network on one grid: what moves on a ring moves what comes out, and a new network says nothing."""

from __future__ import annotations

import pytest
import torch

from afresh.engine.nets.resnet import ResNet

GRIDS = ((12,), (8, 12), (4, 8, 4))


def network(grid: tuple[int, ...], patch: int, periodic: tuple[bool, ...]) -> ResNet:
    torch.manual_seed(0)
    net = ResNet(len(grid), 2, 3, 8, 2, 16, patch, grid, periodic)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return net


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_on_a_ring_it_commutes_with_translations(grid: tuple[int, ...], patch: int) -> None:
    net, x, e = network(grid, patch, (True,) * len(grid)), torch.randn(2, 2, *grid), torch.randn(2, 16)
    axes = tuple(range(2, x.dim()))
    moved = net(x.roll([2 * patch] * len(axes), axes), e)
    torch.testing.assert_close(moved, net(x, e).roll([2 * patch] * len(axes), axes), atol=1e-4, rtol=1e-4)


def test_beyond_an_edge_nothing_comes_back() -> None:
    net, x, e = network((64,), 1, (False,)), torch.zeros(1, 2, 64), torch.randn(1, 16)
    other = x.clone()
    other[..., -1] = 1
    same = (net(other, e) - net(x, e)).detach().abs().amax((0, 1))
    assert float(same[:32].max()) == 0 < float(same[-1])


def test_a_grid_that_patches_do_not_divide() -> None:
    assert network((7, 5), 2, ())(torch.randn(2, 2, 7, 5), torch.randn(2, 16)).shape == (2, 3, 7, 5)


def test_a_new_network_says_nothing() -> None:
    net = ResNet(1, 2, 3, 8, 2, 16, 1, (12,), (True,))
    assert not net(torch.randn(2, 2, 12), torch.randn(2, 16)).any()
