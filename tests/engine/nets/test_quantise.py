"""Quantisers against their definitions: codes and their indices, nearest vectors, the gradient through rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from afresh.engine.nets.quantise import FSQ, VQ, ResidualFSQ, usage

LEVELS = [(2,), (3,), (8, 5, 5, 5), (4, 3, 2), (7, 8)]
every_levels = pytest.mark.parametrize("levels", LEVELS, ids=str)


def noise(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# --------------------------------------------------------------------------- finite scalar quantisation


@every_levels
def test_codes_and_vectors_are_one_to_one(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    every = torch.arange(fsq.size)
    assert fsq.size == math.prod(levels)
    vectors = fsq.vectors(every[:, None])  # (K, d, 1)
    assert vectors.shape == (fsq.size, len(levels), 1)
    assert len(torch.unique(vectors.flatten(1), dim=0)) == fsq.size
    assert float(vectors.min()) >= -1 and float(vectors.max()) <= 1


@every_levels
def test_every_code_is_reachable_and_keeps_its_index(levels: tuple[int, ...]) -> None:
    """A fine sweep of each channel reaches all of its levels, and a vector of the codebook is quantised to itself."""
    fsq = FSQ(levels)
    sweep = torch.linspace(-8, 8, 4001)
    z = sweep[:, None, None].expand(-1, len(levels), -1).contiguous()
    met = fsq(z)
    for i, count in enumerate(levels):
        assert len(torch.unique(met[:, i])) == count
    want = torch.arange(fsq.size)[:, None]
    half = torch.tensor(levels).div(2, rounding_mode="floor")
    targets = fsq.vectors(want) * half[:, None]  # whole numbers
    step = (torch.tensor(levels) - 1) * (1 + 1e-3) / 2
    offset = 0.5 * (torch.tensor(levels) % 2 == 0)
    shift = torch.atanh(offset / step)
    inverse = torch.atanh((targets + offset[:, None]) / step[:, None]) - shift[:, None]
    assert torch.equal(fsq.codes(inverse), want)
    assert torch.allclose(fsq(inverse), fsq.vectors(want), atol=1e-6)


@every_levels
def test_the_output_is_the_vector_of_its_code(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    for grid in ((5,), (3, 4), (2, 3, 2)):
        z = noise(6, len(levels), *grid, scale=2)
        codes = fsq.codes(z)
        assert codes.shape == (6, *grid) and codes.dtype == torch.int64
        torch.testing.assert_close(fsq(z), fsq.vectors(codes), rtol=0, atol=1e-6)


@every_levels
def test_the_bound_keeps_zero_and_stays_between_the_outermost_levels(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    zero = fsq.bound(torch.zeros(1, len(levels), 1))
    assert float(zero.abs().max()) < 1e-6
    wide = fsq.bound(noise(1000, len(levels), 1, scale=100))
    half = torch.tensor(levels).div(2, rounding_mode="floor")[:, None]
    lowest, highest = -half, torch.tensor(levels)[:, None] - 1 - half
    assert bool((wide.round() >= lowest).all()) and bool((wide.round() <= highest).all())


def test_the_gradient_goes_straight_through_the_rounding() -> None:
    """d out / d bound = 1 / half, as without rounding."""
    fsq = FSQ((8, 5))
    z = noise(3, 2, 4, scale=0.5).double().float().requires_grad_(True)
    through = torch.autograd.grad(fsq(z).sum(), z)[0]
    smooth = torch.autograd.grad((fsq.bound(z) / torch.tensor([4.0, 2.0])[:, None]).sum(), z)[0]
    assert torch.equal(through, smooth)


def test_fewer_than_two_levels_are_refused() -> None:
    for levels in ((), (1,), (8, 1)):
        with pytest.raises(ValueError, match="2 levels"):
            FSQ(levels)


# --------------------------------------------------------------------------- residual levels


@every_levels
def test_every_step_divides_the_largest_error_by_the_levels(levels: tuple[int, ...]) -> None:
    """With L levels, 1 apart, K steps leave an error of at most 1 / (2 L^(K-1)), which is almost reached."""
    sweep = torch.linspace(-8, 8, 20_001)
    z = sweep[:, None, None].expand(-1, len(levels), -1).contiguous()
    half = torch.tensor(levels).div(2, rounding_mode="floor")
    bound = FSQ(levels).bound(z)[..., 0]
    for depth in (1, 2, 3):
        error = (bound - ResidualFSQ(levels, depth)(z)[..., 0] * half).abs().amax(0)  # (d,)
        limit = 0.5 / torch.tensor(levels, dtype=torch.float32) ** (depth - 1)
        assert bool((error <= limit + 2e-6).all()), (depth, error, limit)
        assert bool((error >= 0.9 * limit).all()), (depth, error, limit)


@every_levels
def test_the_codes_of_the_steps_give_the_output_at_every_depth(levels: tuple[int, ...]) -> None:
    residual = ResidualFSQ(levels, 3)
    for grid in ((5,), (3, 4), (2, 3, 2)):
        z = noise(6, len(levels), *grid, scale=2)
        codes = residual.codes(z)
        assert codes.shape == (6, *grid, 3) and codes.dtype == torch.int64
        assert int(codes.min()) >= 0 and int(codes.max()) < residual.size == math.prod(levels)
        for k in (1, 2, 3):
            said = residual.vectors(codes[..., :k])
            torch.testing.assert_close(residual(z, torch.full((6,), k)), said, rtol=0, atol=1e-6)
        torch.testing.assert_close(residual(z), residual.vectors(codes), rtol=0, atol=1e-6)


def test_one_step_is_finite_scalar_quantisation() -> None:
    one, plain, z = ResidualFSQ((8, 5), 1), FSQ((8, 5)), noise(3, 2, 7, scale=2)
    assert torch.equal(one(z), plain(z))
    assert torch.equal(one.codes(z)[..., 0], plain.codes(z))


def test_sequences_of_codes_are_different_vectors() -> None:
    """All 6^2 = 36 pairs of codes of two steps give different vectors."""
    residual = ResidualFSQ((3, 2), 2)
    every = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    assert len(torch.unique(residual.vectors(every[:, None]).flatten(1).round(decimals=5), dim=0)) == 36


def test_each_row_has_its_own_depth() -> None:
    residual, z = ResidualFSQ((8, 5), 3), noise(4, 2, 6)
    mixed = residual(z, torch.tensor([1, 3, 2, 1]))
    for row, k in enumerate((1, 3, 2, 1)):
        torch.testing.assert_close(mixed[row], residual(z, torch.full((4,), k))[row], rtol=0, atol=0)
    assert not torch.equal(mixed[0], residual(z)[0])


def test_the_gradient_goes_straight_through_all_steps() -> None:
    residual = ResidualFSQ((8, 5), 3)
    z = noise(3, 2, 4, scale=0.5).requires_grad_(True)
    smooth = torch.autograd.grad((residual.first.bound(z) / torch.tensor([4.0, 2.0])[:, None]).sum(), z)[0]
    for depth in (None, torch.tensor([1, 2, 3])):
        assert torch.equal(torch.autograd.grad(residual(z, depth).sum(), z)[0], smooth)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="one step"):
        ResidualFSQ((8, 5), 0)


# --------------------------------------------------------------------------- vector quantisation


def test_the_nearest_vector_is_taken() -> None:
    torch.manual_seed(1)
    vq, z = VQ(37, 5), noise(4, 5, 3, 6)
    rows = z.movedim(1, -1)[..., None, :].double()
    exact = (rows - vq.embedding.double()).square().sum(-1)  # (4, 3, 6, 37)
    assert torch.equal(vq.codes(z), exact.argmin(-1))
    torch.testing.assert_close(vq.distances(z).view(4, 3, 6, 37).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vq(z), vq.vectors(vq.codes(z)), rtol=0, atol=1e-6)
    assert torch.equal(vq.codes(vq.vectors(torch.arange(37)[:, None])), torch.arange(37)[:, None])


def test_the_nearest_vector_is_taken_in_bfloat16_regions_too() -> None:
    torch.manual_seed(1)
    vq, z = VQ(500, 4), noise(8, 4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vq.codes(z), VQ.codes(vq, z.clone()))
        inside = vq.codes(z)
    assert torch.equal(inside, vq.codes(z))


def test_the_gradient_of_a_quantised_vector_is_one_and_not_the_codebooks() -> None:
    torch.manual_seed(1)
    vq, z = VQ(9, 3), noise(2, 3, 4).requires_grad_(True)
    (vq(z) * noise(2, 3, 4)).sum().backward()
    assert z.grad is not None and torch.equal(z.grad, noise(2, 3, 4))
    assert vq.embedding.grad is None


# --------------------------------------------------------------------------- usage


def test_usage_is_the_share_and_the_exponential_of_the_entropy() -> None:
    assert usage(torch.tensor([[0, 1], [2, 3]]), 8) == (0.5, pytest.approx(4.0))
    assert usage(torch.zeros(5, dtype=torch.int64), 8) == (0.125, pytest.approx(1.0))
    p = torch.tensor([3 / 4, 1 / 4])
    assert usage(torch.tensor([0, 0, 0, 5]), 6)[1] == pytest.approx(float(torch.exp(-(p * p.log()).sum())))
