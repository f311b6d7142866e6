"""The ladder of latents: what sampling and inference share, and where a latent has a say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from afresh.nets.hierarchy import LadderDecoder, Pyramid

SHAPES = [(2, 33), (1, 28, 28), (3, 7, 10), (1, 5, 6, 4), (1, 1, 9)]


def made(shape: tuple[int, ...], rungs: int = 2) -> tuple[Pyramid, LadderDecoder]:
    torch.manual_seed(0)
    pair = Pyramid(shape, 6, 3, 8, 1), LadderDecoder(shape, 6, 3, 8, 1, 4, 1, rungs, 2)
    for net in pair:
        for p in net.parameters():
            if not p.any():
                nn.init.normal_(p, std=0.1)
    return pair


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rungs", [1, 2, 9])
def test_the_path_of_inference_is_the_path_of_sampling(shape: tuple[int, ...], rungs: int) -> None:
    """What was drawn on the way, decoded, is what came out: on every grid, odd sizes included."""
    pyramid, decoder = made(shape, rungs)
    x, c = torch.randn(2, *shape), torch.randn(2, 6)
    mean, _, seen = pyramid(x, c)
    assert mean.shape == (2, 3)
    assert [tuple(s.shape[2:]) for s in seen] == decoder.grids
    noise = torch.randn(2, decoder.dim - 3)
    y, u, _, _ = decoder.infer(mean, c, seen, noise)
    assert y.shape == x.shape and u.shape == noise.shape
    torch.testing.assert_close(decoder(torch.cat([mean, u], 1), c), y, rtol=1e-4, atol=1e-4)


def test_at_first_the_posterior_is_the_prior() -> None:
    torch.manual_seed(0)
    pyramid, decoder = Pyramid((1, 12, 12), 6, 3, 8, 1), LadderDecoder((1, 12, 12), 6, 3, 8, 1, 4, 1, 2, 2)
    mean, _, seen = pyramid(torch.randn(2, 1, 12, 12), torch.randn(2, 6))
    noise = torch.randn(2, decoder.dim - 3)
    _, u, below, log_var = decoder.infer(mean, torch.randn(2, 6), seen, noise)
    assert torch.equal(u, noise) and not below.any() and not log_var.any()


def test_the_posterior_of_a_place_sees_the_picture_and_what_was_drawn_above() -> None:
    pyramid, decoder = made((1, 12, 12))
    x, c = torch.randn(1, 1, 12, 12), torch.randn(1, 6)
    mean, _, seen = pyramid(x, c)
    noise = torch.randn(1, decoder.dim - 3)
    coarse = decoder.shapes[0][0] * decoder.shapes[0][1] * decoder.shapes[0][2]
    before = decoder.infer(mean, c, seen, noise)[2]
    assert not torch.equal(decoder.infer(mean, c, [s + 1 for s in seen], noise)[2][:, coarse:], before[:, coarse:])
    assert not torch.equal(decoder.infer(mean + 1, c, seen, noise)[2][:, :coarse], before[:, :coarse])
    moved = torch.cat([noise[:, :coarse] + 1, noise[:, coarse:]], 1)
    after = decoder.infer(mean, c, seen, moved)[2]
    assert torch.equal(after[:, :coarse], before[:, :coarse]) and not torch.equal(after[:, coarse:], before[:, coarse:])


def test_a_fine_latent_changes_the_picture_near_its_place_most() -> None:
    _, decoder = made((1, 32, 32), 3)
    z, c = torch.randn(1, decoder.dim), torch.randn(1, 6)
    side = decoder.shapes[2][1]  # places are ordered (values, rows, columns), the finest rung last
    moved = z.clone()
    moved[0, -side * side :].view(side, side)[2, 2] += 3
    change = (decoder(moved, c) - decoder(z, c)).detach().abs()[0, 0]
    r, k = divmod(int(change.argmax()), 32)
    scale = 32 / side
    assert abs(r - 2.5 * scale) <= 2 * scale and abs(k - 2.5 * scale) <= 2 * scale
