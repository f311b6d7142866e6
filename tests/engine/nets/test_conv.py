"""Convolutional networks: grids of any size, initial values, and dependence on the condition."""

from __future__ import annotations

import math

import pytest
import torch

from afresh.engine.nets.conv import (
    ConvDecoder,
    ConvEncoder,
    Critic,
    FreeBlock,
    Generator,
    ModulatedBlock,
    grow,
    ladder,
    shrink,
)

SHAPES = [(1, 8, 8), (3, 28, 28), (1, 7, 13), (2, 33), (1, 160), (2, 5, 6, 9), (1, 1, 8), (3, 3, 3)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def alive(module: torch.nn.Module) -> None:
    """Replaces initial zeros, which would hide dependences."""
    for p in module.parameters():
        if p.dim() > 1 and not p.any():
            torch.nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))


@pytest.mark.parametrize(
    ("grid", "steps"),
    [
        ((8, 8), [(8, 8), (4, 4)]),
        ((28, 28), [(28, 28), (14, 14), (7, 7), (4, 4)]),
        ((33,), [(33,), (17,), (9,), (5,), (3,)]),
        ((3, 9), [(3, 9), (3, 5), (3, 3)]),
        ((2, 2), [(2, 2)]),
    ],
)
def test_ladder_halves_long_axes_only(grid: tuple[int, ...], steps: list[tuple[int, ...]]) -> None:
    assert ladder(grid) == steps


def test_shrink_averages_pairs_and_copies_an_odd_last_cell() -> None:
    assert shrink(torch.tensor([[[1.0, 3, 5, 7, 9]]]), (3,)).tolist() == [[[2.0, 6.0, 9.0]]]
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert shrink(x, (2, 2)).tolist() == [[[[0.5, 2.0], [3.5, 5.0]]]]
    assert shrink(x, (2, 3)) is x


@pytest.mark.parametrize("grid", [(9,), (5, 8), (3, 4, 7)])
def test_a_constant_survives_the_ladder(grid: tuple[int, ...]) -> None:
    x = torch.full((2, 3, *grid), 0.7)
    for smaller in ladder(grid)[1:]:
        x = shrink(x, smaller)
    assert torch.allclose(grow(x, grid), torch.full((2, 3, *grid), 0.7))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, ...]) -> None:
    x, c, z = torch.randn(3, *shape), torch.randn(3, 8), torch.randn(3, 5)
    mean, log_var = ConvEncoder(shape, 8, 5, 16, 1)(x, c)
    assert mean.shape == log_var.shape == (3, 5)
    assert ConvDecoder(shape, 8, 5, 16, 1)(z, c).shape == (3, *shape)
    assert Generator(shape, 8, 5, 16, 1, group=8)(z, c).shape == (3, *shape)
    assert Critic(shape, 8, 16, 2)(x, c).shape == (3,)


def test_blocks_start_as_the_identity() -> None:
    x = torch.randn(2, 16, 6, 6)
    assert torch.equal(ModulatedBlock(2, 16, 4)(x, torch.randn(2, 4)), x)
    assert torch.equal(FreeBlock(2, 16, 16, 1, depth=4)(x), x)


def test_the_generator_starts_at_about_unit_variance() -> None:
    x = Generator((3, 32, 32), 16, 64, 32, 2)(torch.randn(64, 64), torch.randn(64, 16))
    assert 0.4 < float(x.detach().std()) < 1.6


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 33)])
def test_every_output_depends_on_latent_and_condition(shape: tuple[int, ...]) -> None:
    z, c = torch.randn(1, 5), torch.randn(1, 8)
    for net in (ConvDecoder(shape, 8, 5, 16, 1), Generator(shape, 8, 5, 16, 1)):
        alive(net)
        x = net(z, c)
        assert ((net(z + 1, c) - x).abs() > 1e-6).float().mean() > 0.99
        assert ((net(z, c + 1) - x).abs() > 1e-6).float().mean() > 0.99


def test_every_input_reaches_encoder_and_critic() -> None:
    x, c = torch.randn(1, 2, 7, 10, requires_grad=True), torch.randn(1, 8, requires_grad=True)
    for net in (ConvEncoder((2, 7, 10), 8, 5, 16, 1), Critic((2, 7, 10), 8, 16, 1)):
        alive(net)
        out = net(x, c)
        total = out.sum() if isinstance(out, torch.Tensor) else out[0].sum()
        by_x, by_c = torch.autograd.grad(total, (x, c))
        assert (by_x != 0).float().mean() > 0.99
        assert (by_c != 0).all()


@pytest.mark.parametrize("shape", [(1, 9, 9), (1, 33), (1, 5, 6, 7)])
def test_the_critic_has_second_derivatives(shape: tuple[int, ...]) -> None:
    """The gradient of |dD/dx|^2 by a weight agrees with a central difference.

    After the last activation D is linear in the weights, so the penalty is their quadratic and the difference exact.
    """
    net = Critic(shape, 4, 8, 1)
    alive(net)
    x, c = torch.randn(2, *shape, requires_grad=True), torch.randn(2, 4)

    def penalty() -> torch.Tensor:
        (gradient,) = torch.autograd.grad(net(x, c).sum(), x, create_graph=True)
        return gradient.square().sum()

    for weight in (net.plain.weight, net.projection.weight, net.levels[-1][-1].narrow.weight):
        (exact,) = torch.autograd.grad(penalty(), weight)
        way, step = exact / exact.norm(), 0.1
        values = []
        for by in (step, -2 * step):
            with torch.no_grad():
                weight += by * way
            values.append(float(penalty().detach()))
        with torch.no_grad():
            weight += step * way
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(exact.norm()), rel=1e-3)


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 5, 6, 7)])
def test_examples_of_a_batch_are_independent(shape: tuple[int, ...]) -> None:
    x, c, z = torch.randn(4, *shape), torch.randn(4, 8), torch.randn(4, 5)
    encoder, decoder = ConvEncoder(shape, 8, 5, 16, 1), ConvDecoder(shape, 8, 5, 16, 1)
    critic, generator = Critic(shape, 8, 16, 1), Generator(shape, 8, 5, 16, 1)
    for net in (encoder, decoder, critic, generator):
        alive(net)
    assert torch.allclose(encoder(x, c)[0][:1], encoder(x[:1], c[:1])[0], atol=1e-5)
    assert torch.allclose(decoder(z, c)[:1], decoder(z[:1], c[:1]), atol=1e-5)
    assert torch.allclose(critic(x, c)[:1], critic(x[:1], c[:1]), atol=1e-5)
    assert torch.allclose(generator(z, c)[:1], generator(z[:1], c[:1]), atol=1e-5)
