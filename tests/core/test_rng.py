"""Random numbers as pure functions of (seed, purpose, index, position)."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare, kstest

from afresh.core.rng import GOLDEN, MixedRng, Rng, mix

MANY = torch.arange(50_000)


def test_the_mixer_is_splitmix64() -> None:
    """The published outputs of SplitMix64 from the seed 1234567 (rosettacode.org, Splitmix64)."""
    state = torch.tensor([1234567]) + GOLDEN * torch.arange(1, 6)
    found = [v % (1 << 64) for v in mix(state).tolist()]
    assert found == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_is_uniform_and_normal_is_normal() -> None:
    u, z = Rng(1).uniform("a", MANY), Rng(1).normal("a", MANY)
    assert float(u.min()) >= 0 and float(u.max()) < 1
    assert kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert kstest(z.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62, 10**9])
def test_positions_of_one_example_are_independent(seed: int) -> None:
    z = Rng(seed).normal("a", torch.arange(4), (25_000,))  # (4, N)
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-4
    correlation = torch.corrcoef(torch.cat([z, z.roll(1, 1)]))  # rows with each other and with their neighbours
    off = correlation - torch.eye(8)
    assert float(off.abs().max()) < 5 / math.sqrt(25_000)


def test_normal_has_the_moments_of_a_normal() -> None:
    """Each within five standard errors of its value: 0, 1, 0, 3, and a tail beyond 3.5 of 0.000465."""
    z = Rng(2).normal("moments", torch.arange(1000), (1000,)).double()
    n = z.numel()
    for power, value, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - value) < 5 * math.sqrt(variance / n), power
    tail = 0.00046525816
    assert abs(float((z.abs() > 3.5).double().mean()) - tail) < 5 * math.sqrt(tail / n)


@pytest.mark.parametrize("lag", [1, 2, 64, 4096])
def test_neighbouring_examples_and_steps_are_independent(lag: int) -> None:
    z = Rng(4).normal("index", torch.arange(100_000))
    for a, b in ((z[:-lag], z[lag:]), (z[:-lag].square() - 1, z[lag:].square() - 1)):
        spread = float((a.square().mean() * b.square().mean()).sqrt())
        assert abs(float((a * b).mean())) < 5 * spread / math.sqrt(len(a))


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1), (1, 1 << 40)])
def test_purposes_and_seeds_are_independent(seeds: tuple[int, int]) -> None:
    a, b = Rng(seeds[0]).uniform("flow/time", MANY), Rng(seeds[1]).uniform("flow/noise", MANY)
    cells = torch.bincount((a * 8).long() * 8 + (b * 8).long(), minlength=64)  # 8 x 8 squares, equally full
    assert chisquare(cells.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("draw", ["bits", "uniform", "normal"])
def test_an_example_draws_the_same_alone_and_among_257(draw: str) -> None:
    """Bit for bit: wide enough for every vectorised loop and its remainder."""
    index = torch.arange(257) * 31 + 5
    whole = getattr(Rng(9), draw)("p", index, (33,))
    for i in (0, 1, 100, 255, 256):
        assert torch.equal(getattr(Rng(9), draw)("p", index[i : i + 1], (33,))[0], whole[i])


def test_low_and_high_bits_are_uniform() -> None:
    bits = Rng(3).bits("a", MANY)
    for shift in (0, 1, 31, 40, 63):
        ones = int(((bits >> shift) & 1).sum())
        assert chisquare([ones, len(MANY) - ones]).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(), (3,), (7,), (2, 3)])
def test_an_example_draws_the_same_alone_and_in_any_batch(shape: tuple[int, ...]) -> None:
    index = torch.tensor([5, 0, 1_000_003, 17, 17])
    for name in ("bits", "uniform", "normal"):
        draw = getattr(Rng(7), name)
        whole = draw("p", index, shape)
        assert whole.shape == (5, *shape)
        assert torch.equal(torch.cat([draw("p", index[i : i + 1], shape) for i in range(5)]), whole)
        assert torch.equal(whole[3], whole[4])


def test_seed_purpose_and_index_each_change_every_number() -> None:
    base = Rng(1).bits("a", torch.arange(1000))
    for other in (Rng(2).bits("a", torch.arange(1000)), Rng(1).bits("b", torch.arange(1000))):
        assert not (other == base).any()
    assert len(torch.unique(base)) == 1000


def test_bernoulli_has_its_probability() -> None:
    for p in (0.0, 0.1, 0.75, 1.0):
        found = float(Rng(1).bernoulli("x", MANY, p).double().mean())
        assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / len(MANY))


def test_the_numbers_never_change_between_versions() -> None:
    """Otherwise old runs could not be resumed, and old seeds would give other samples."""
    assert Rng(0).bits("sample/noise", torch.tensor([0, 1])).tolist() == GOLDEN_BITS
    z = Rng(0).normal("sample/noise", torch.tensor([0]), (3,))
    assert z[0].tolist() == pytest.approx(GOLDEN_NORMAL, abs=1e-7)


GOLDEN_BITS = [4091708200232541779, 2179118348044475786]
GOLDEN_NORMAL = [1.1290366649627686, 2.1098573207855225, -1.3180010318756104]


def test_numbers_of_several_requests_are_those_of_each() -> None:
    mixed, index = MixedRng([5, 5, 2, 9], [0, 7, 7, 1]), torch.tensor([2, 0, 3, 1])
    for draw in (lambda r, i: r.normal("a", i, (3, 2)), lambda r, i: r.uniform("b", i), lambda r, i: r.bits("c", i)):
        each = [draw(Rng(seed), torch.tensor([number])) for seed, number in [(2, 7), (5, 0), (9, 1), (5, 7)]]
        assert torch.equal(draw(mixed, index), torch.cat(each))
    for rng in (mixed, Rng(3)):
        assert torch.equal(rng.uniforms(["a", "b"], index), torch.stack([rng.uniform(p, index) for p in "ab"]))


def test_dropout_keeps_the_mean_and_depends_on_the_example_alone() -> None:
    factors = Rng(1).dropout("x", MANY[:4096], (100,), 0.1)
    off, scale = 26 / 256, 256 / 230  # the nearest share of 256 parts
    assert factors.unique().tolist() == [0.0, pytest.approx(scale)]
    deviation = (off * (1 - off) / factors.numel()) ** 0.5
    assert abs(float((factors == 0).double().mean()) - off) < 4 * deviation
    assert abs(float(factors.double().mean()) - 1) < 4 * deviation * scale
    assert torch.equal(Rng(1).dropout("x", MANY[7:9], (100,), 0.1), factors[7:9])
    assert torch.equal(Rng(1).dropout("x", MANY[:3], (2, 5), 0.0), torch.ones(3, 2, 5))
