"""The U-Net: any grid, zero at first, independent rows, attention equivariant to permutations of positions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from afresh.engine.nets.patches import spread
from afresh.engine.nets.unet import ChannelNorm, SelfAttention, UNet


def made(rank: int = 2, channels: int = 2, widths: tuple[int, ...] = (8, 16), blocks: int = 1) -> UNet:
    """A network without zero weights."""
    torch.manual_seed(0)
    net = UNet(rank, channels, channels, widths, blocks, 6, attention=True)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return net


@pytest.mark.parametrize("grid", [(5,), (16,), (1,), (8, 8), (7, 10), (1, 3), (3, 4, 5), (2, 2, 2)])
@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 8, 16)])
def test_any_grid(grid: tuple[int, ...], widths: tuple[int, ...]) -> None:
    net = made(len(grid), widths=widths)
    x = torch.randn(3, 2, *grid)
    y = net(x, torch.randn(3, 6))
    assert y.shape == x.shape and bool(torch.isfinite(y).all())


def test_a_new_network_returns_zero() -> None:
    net = UNet(2, 1, 1, (8, 16), 2, 6, True)
    assert not net(torch.randn(2, 1, 8, 8), torch.randn(2, 6)).any()


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_parameter_is_reached(blocks: int) -> None:
    net = made(blocks=blocks)
    net(torch.randn(2, 2, 8, 8), torch.randn(2, 6)).square().sum().backward()
    idle = [k for k, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_rows_of_a_batch_are_independent() -> None:
    net = made().eval()
    x, e = torch.randn(5, 2, 8, 8), torch.randn(5, 6)
    whole = net(x, e)
    torch.testing.assert_close(net(x[3:4], e[3:4]), whole[3:4], rtol=0, atol=1e-5)
    x[:3] += 1
    torch.testing.assert_close(net(x, e)[3:], whole[3:], rtol=0, atol=1e-5)


def test_the_embedding_modulates() -> None:
    net, x = made(), torch.randn(1, 2, 8, 8)
    assert not torch.allclose(net(x, torch.zeros(1, 6)), net(x, torch.ones(1, 6)), atol=1e-3)


def test_attention_is_equivariant_to_the_order_of_positions() -> None:
    torch.manual_seed(0)
    net = SelfAttention(1, 64)
    nn.init.normal_(net.out.get_parameter("weight"), std=0.2)
    x, order = torch.randn(2, 64, 9), torch.randperm(9)
    torch.testing.assert_close(net(x[:, :, order]), net(x)[:, :, order], rtol=0, atol=1e-5)


def test_attention_by_definition() -> None:
    """softmax(q k / sqrt(d)) v for each head, with its residual connection."""
    torch.manual_seed(0)
    net = SelfAttention(2, 64)  # two heads of 32
    nn.init.normal_(net.out.get_parameter("weight"), std=0.2)
    x = torch.randn(2, 64, 3, 4)
    q, k, v = net.qkv(net.norm(x)).reshape(2, 3, 2, 32, 12).unbind(1)  # (B, heads, 32, places)
    weight = (q.mT @ k / 32**0.5).softmax(-1)  # (B, heads, places, places)
    y: Tensor = (v @ weight.mT).reshape(2, 64, 3, 4)
    torch.testing.assert_close(net(x), x + net.out(y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(5,), (4, 3), (2, 3, 2)])
def test_the_norm_is_over_the_channels_of_each_position(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 6, *grid) * 3 + 1
    y = ChannelNorm(6)(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, *grid), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(2, *grid), rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", [(6,), (6, 10), (5, 7), (2, 4, 6)], ids=str)
def test_unfolding_puts_every_channel_into_its_cell(grid: tuple[int, ...]) -> None:
    rank, coarse = len(grid), tuple((n + 1) // 2 for n in grid)
    y = torch.randn(2, 2**rank * 3, *coarse)
    out = spread(y, grid)
    assert out.shape == (2, 3, *grid)
    for place in torch.cartesian_prod(*[torch.arange(n) for n in grid]).reshape(-1, rank).tolist():
        cell = 0
        for p in place:
            cell = 2 * cell + p % 2
        at = (slice(None), slice(3 * cell, 3 * cell + 3), *(p // 2 for p in place))
        assert torch.equal(out[(slice(None), slice(None), *place)], y[at])


@pytest.mark.parametrize("shift", [(4, 0), (0, 8)])
@pytest.mark.parametrize("periodic", [(True, True), (True, False), (False, True)])
def test_a_grid_that_closes_on_itself_has_no_seam(periodic: tuple[bool, bool], shift: tuple[int, int]) -> None:
    """Moved around along a periodic axis by whole cells of the coarsest grid, the result is moved alike; along another
    axis it is not."""
    torch.manual_seed(0)
    net = UNet(2, 1, 1, (4, 8, 8), 1, 6, attention=True, periodic=periodic).double()
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    x, e = torch.randn(1, 1, 8, 16, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    moved = net(x.roll(shift, (2, 3)), e)
    same = torch.allclose(moved, net(x, e).roll(shift, (2, 3)))
    assert same == all(p for p, s in zip(periodic, shift, strict=True) if s)
