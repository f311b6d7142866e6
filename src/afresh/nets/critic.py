"""A critic of places, and the penalty that keeps a critic smooth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from afresh.nets.autoencoder import DOWN, Shape, padded
from afresh.nets.conv import FreeBlock, conv, dense, start


class PlaceCritic(nn.Module):
    """x (B, C, *grid) -> how real x looks around each place of the latents, (B, *latent_grid), float32.

    The encoder's halvings at half its width, with the blocks of Huang et al. 2024 (R3GAN), which have no normalisation.
    A score of every place instead of one of the whole, as in Isola et al. 2017 (pix2pix, sec. 3.2.2): what a
    reconstruction lacks is texture, and a place has as many examples of it as there are places.
    """

    def __init__(self, shape: Sequence[int], net: Shape) -> None:
        super().__init__()
        self.factor, dims = net.factor, len(shape) - 1
        widths = [max(1, w // 2) for w in net.widths]
        self.downs = nn.ModuleList(
            start(DOWN[dims - 1](a, b, 4, stride=2, padding=1), 1) for a, b in pairwise([shape[0], *widths])
        )
        depth = net.blocks * len(widths)
        self.levels = nn.ModuleList(
            nn.Sequential(*(FreeBlock(dims, w, w, 1, depth) for _ in range(net.blocks))) for w in widths
        )
        self.last = start(conv(dims, widths[-1], 1, 1, bias=False), 1)

    def forward(self, x: Tensor) -> Tensor:
        h = dense(padded(x.float(), self.factor))
        for down, level in zip(self.downs, self.levels, strict=True):
            h = level(down(h))
        return self.last(h).float().squeeze(1)


def gradient_penalty(scores: Tensor, x: Tensor) -> Tensor:
    """|d score / d x|^2 of each example, (B,), of all its scores together where there is more than one; itself
    differentiable. x (B, ...) is the float32 leaf of `scores` (B, ...)."""
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return gradient.float().square().flatten(1).sum(1)
