"""Optimisation of latents against its closed form, independently for each row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afresh.engine.sampling.latent_search import search

torch.manual_seed(0)
MATRIX, WANTED = torch.randn(6, 3), torch.randn(4, 6)


def decode(z: Tensor) -> Tensor:
    return z @ MATRIX.T


def misfit(y: Tensor, variance: float) -> Tensor:
    return 0.5 * (y - WANTED[: len(y)]).square().sum(1) / variance


@pytest.mark.parametrize("variance", [0.1, 1.0])
def test_a_linear_decoder_gives_ridge_regression(variance: float) -> None:
    """The most probable z of y = A z + noise is (A'A + s^2 I)^-1 A'y."""
    found = search(decode, torch.zeros(4, 3), lambda y: misfit(y, variance), steps=400)
    exact = torch.linalg.solve(MATRIX.T @ MATRIX + variance * torch.eye(3), (WANTED @ MATRIX).T).T
    torch.testing.assert_close(found, exact, atol=2e-3, rtol=0)


def test_rows_are_optimised_independently() -> None:
    start = torch.randn(4, 3)
    whole = search(decode, start, lambda y: misfit(y, 1.0), steps=20)
    alone = search(decode, start[:1], lambda y: misfit(y, 1.0), steps=20)
    torch.testing.assert_close(whole[:1], alone, atol=1e-5, rtol=0)


def test_the_result_is_never_worse_and_the_input_is_unchanged() -> None:
    start = torch.randn(4, 3)
    kept = start.clone()

    def cost(z: Tensor) -> Tensor:
        return misfit(decode(z), 1.0) + 0.5 * z.square().sum(1)

    found = search(decode, start, lambda y: misfit(y, 1.0), steps=3, rate=50.0)
    assert bool((cost(found) <= cost(start) + 1e-5).all()) and torch.equal(start, kept)
    assert torch.equal(search(decode, start, lambda y: y.sum(1) * torch.nan), start)


def test_it_works_without_gradients_and_leaves_none_in_the_network() -> None:
    net = torch.nn.Linear(3, 6)
    with torch.no_grad():
        found = search(net, torch.zeros(4, 3), lambda y: misfit(y, 1.0), steps=5)
    assert not found.requires_grad and net.weight.grad is None and bool(found.any())
