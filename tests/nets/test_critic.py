"""The critic of places: a score for each place of the latents, of what is around it; and the penalty in closed form."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from afresh.core.rng import Rng
from afresh.nets.autoencoder import Shape, latent_grid
from afresh.nets.critic import PlaceCritic, gradient_penalty


def net(factor: Literal[2, 4, 8], width: int = 8) -> Shape:
    return Shape(bottleneck="kl", factor=factor, channels=4, levels=(8,), codes=8, width=width, blocks=1, most=4)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("shape", [(2, 33), (3, 7, 10), (1, 5, 3, 4)])
def test_every_place_of_the_latents_has_a_score(shape: tuple[int, ...], factor: Literal[2, 4, 8]) -> None:
    x = Rng(0).normal("x", torch.arange(3), shape)
    scores = PlaceCritic(shape, net(factor))(x)
    assert scores.shape == (3, *latent_grid(shape[1:], factor)) and scores.dtype == torch.float32


def test_a_place_is_judged_by_what_is_near_it() -> None:
    torch.manual_seed(0)
    critic = PlaceCritic((1, 64), net(4))
    x = Rng(0).normal("x", torch.arange(1), (1, 64))
    changed = x.clone()
    changed[..., 60:] += 1
    moved = (critic(x) != critic(changed))[0]
    assert bool(moved[-1]) and not bool(moved[:8].any())


def test_a_critic_of_the_narrowest_network_has_a_channel_at_least() -> None:
    assert PlaceCritic((1, 8), net(2, width=1))(torch.zeros(2, 1, 8)).shape == (2, 4)


def test_the_penalty_is_that_of_a_linear_and_of_a_square_critic() -> None:
    """Scores w x of every cell: the gradient of their sum is w everywhere. Scores x^2 / 2 of the whole: it is x."""
    x = Rng(0).normal("x", torch.arange(3), (1, 4, 5)).requires_grad_(True)
    w = torch.tensor(0.7, requires_grad=True)
    found = gradient_penalty((w * x).squeeze(1), x)
    torch.testing.assert_close(found, torch.full((3,), 20 * 0.49))
    (slope,) = torch.autograd.grad(found.sum(), w)  # d (3 * 20 w^2) / d w
    torch.testing.assert_close(slope, torch.tensor(2 * 3 * 20 * 0.7))
    whole = (0.5 * x.square()).flatten(1).sum(1)
    torch.testing.assert_close(gradient_penalty(whole, x), x.detach().square().flatten(1).sum(1))
