"""The fused step between convolutions against the same mathematics in float64, and the networks that use it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.nets.kernels import fields
from afresh.nets.patches import spread
from afresh.nets.unet import ChannelNorm, UNet
from tests import needs
from tests.nets.kernels.test_functions import TOLERANCE, agree

pytestmark = needs.kernels


def exact(x: Tensor, weight: Tensor, bias: Tensor, film: Tensor | None = None) -> Tensor:
    """The same in PyTorch's own steps; x (B, ..., C), channels last."""
    h = F.layer_norm(x, (x.shape[-1],), weight, bias)
    if film is not None:
        scale, shift = (v.view(len(x), *[1] * (x.dim() - 2), -1) for v in film.chunk(2, 1))
        h = h * (1 + scale) + shift
    return F.silu(h)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 9, 33), (1, 2, 3, 4, 16)], ids=str)
def test_it_is_norm_film_and_silu_with_their_gradients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    c = shape[-1]
    x, weight, bias = torch.randn(shape) + 0.5, torch.rand(c) + 0.5, torch.randn(c)
    film = 0.5 * torch.randn(shape[0], 2 * c)

    def mine(x: Tensor, weight: Tensor, bias: Tensor, *film: Tensor) -> Tensor:
        return fields.activated(x.movedim(-1, 1), weight, bias, film[0] if film else None).movedim(1, -1)

    agree(mine, exact, (x, weight, bias), dtype)
    agree(mine, exact, (x, weight, bias, film), dtype)


def test_what_it_does_not_take_goes_through_torch_and_comes_to_the_same() -> None:
    torch.manual_seed(0)
    norm, x, film = ChannelNorm(6), torch.randn(2, 6, 4, 4), torch.randn(2, 12)
    assert not fields.fits(x, film) and not fields.fits(x.to(memory_format=torch.channels_last), film.double())
    last = x.to(memory_format=torch.channels_last)
    assert fields.fits(last, film) and fields.fits(last, None)
    for given in (film, None):
        torch.testing.assert_close(norm.activated(x, given), norm.activated(last, given), rtol=1e-5, atol=1e-5)


def test_a_whole_net_and_its_gradients_are_those_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = UNet(2, 1, 1, (8, 16), 1, 12, True).to(memory_format=torch.channels_last)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    x, e = torch.randn(3, 1, 7, 9), torch.randn(3, 12)

    def run() -> list[Tensor]:
        net.zero_grad()
        y = net(x, e)
        y.square().sum().backward()
        return [y.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]

    fused = run()
    monkeypatch.setattr(fields, "fits", lambda x, film: False)
    plain = run()
    assert len(fused) == len(plain)
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4 * float(b.abs().max()))


@pytest.mark.parametrize("grid", [(6,), (6, 10), (5, 7), (2, 4, 6)], ids=str)
def test_spreading_puts_every_channel_into_its_cell(grid: tuple[int, ...]) -> None:
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
