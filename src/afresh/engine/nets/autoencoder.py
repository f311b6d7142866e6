"""A convolutional encoder and decoder whose latents keep the grid, over 1 to 3 axes of any size.

Every axis is padded to a multiple of `factor` with copies of its last cell, and cropped after decoding. Each halving is
a strided convolution and each doubling a transposed one, so that nothing is computed on the finest grid, where an
autoencoder would spend most of its time on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core.device import wide
from afresh.core.safe_json import MOST_GRIDS, MOST_LAYERS
from afresh.engine.nets.conv import conv, dense, start
from afresh.engine.nets.quantise import FSQ, VQ, NoQuantiser, ResidualFSQ
from afresh.engine.nets.unet import ChannelNorm


class LatentDecoder(nn.Module):
    """Latents (B, channels, *grid) with mean 0 and deviation 1 in each channel to `decode(net, z)` of their own scale
    z, whose statistics `mean` and `std` are (channels,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, std: Tensor, decode: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.decode = net, decode
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        along = (-1, *[1] * (x.dim() - 2))
        return self.decode(self.net, x * self.std.view(along) + self.mean.view(along))


DOWN = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
UP = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Bottleneck = Literal["kl", "fsq", "vq"]
MOST_RESIDUAL = 4  # with 8 levels, four codes distinguish 4,096 values of a channel
NETWORKS = ("encoder", "decoder", "quantiser")  # the modules of a codec


class LatentShape(BaseModel):
    """Sizes of both networks.

    `factor`: cells along an axis for each position of the latents. `channels`: of the latents (`fsq` uses one for each
    of `levels`). `codes`: size of the codebook of `vq`. `residual`: number of codes of `fsq` for each position, each of
    the residual of those before it. `width`: channels after the first halving, doubled with each further one up to
    `most` times `width`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    bottleneck: Bottleneck
    factor: Literal[2, 4, 8]
    channels: int = Field(ge=1)
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(min_length=1, max_length=MOST_GRIDS)
    codes: int = Field(ge=2)
    residual: int = Field(default=1, ge=1, le=MOST_RESIDUAL)  # 1 for codecs saved by versions without this field
    width: int = Field(ge=1)
    blocks: int = Field(ge=1, le=MOST_LAYERS)
    most: int = Field(ge=1)

    @property
    def latent(self) -> int:
        """Channels of the latents."""
        return len(self.levels) if self.bottleneck == "fsq" else self.channels

    @property
    def widths(self) -> list[int]:
        """Channels of each level, fine to coarse."""
        return [self.width * min(2**i, self.most) for i in range(int(math.log2(self.factor)))]


def latent_grid(grid: Sequence[int], factor: int) -> tuple[int, ...]:
    """Positions of the latents along each axis: the grid divided by `factor`, rounded up."""
    return tuple(-(-n // factor) for n in grid)


def pad(x: Tensor, factor: int) -> Tensor:
    """Pads every axis of x (B, C, *grid) to a multiple of `factor` with copies of its last cell."""
    missing = [-n % factor for n in x.shape[2:]]
    return F.pad(x, [p for m in reversed(missing) for p in (0, m)], mode="replicate") if any(missing) else x


class ConvBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), 3 cells wide; the last convolution starts at zero."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv_1 = conv(dims, channels, channels, 3)
        self.conv_2 = start(conv(dims, channels, channels, 3), 0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_2(self.norm_2.activated(self.conv_1(self.norm_1.activated(x))))


class FieldEncoder(nn.Module):
    """x (B, C, *grid) -> (B, out, *latent_grid), float32."""

    def __init__(self, shape: Sequence[int], net: LatentShape, out: int) -> None:
        super().__init__()
        self.factor, dims, widths = net.factor, len(shape) - 1, net.widths
        inward = [shape[0], *widths[:-1]]
        self.downs = nn.ModuleList(
            DOWN[dims - 1](a, b, 4, stride=2, padding=1) for a, b in zip(inward, widths, strict=True)
        )
        self.levels = nn.ModuleList(nn.Sequential(*(ConvBlock(dims, w) for _ in range(net.blocks))) for w in widths)
        self.norm = ChannelNorm(widths[-1])
        self.last = conv(dims, widths[-1], out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = dense(pad(x.float(), self.factor))
        for down, level in zip(self.downs, self.levels, strict=True):
            h = level(down(h))
        return self.last(self.norm.activated(h)).float()


class FieldDecoder(nn.Module):
    """z (B, latent, *latent_grid) -> x (B, C, *grid), float32."""

    def __init__(self, shape: Sequence[int], net: LatentShape) -> None:
        super().__init__()
        self.grid, dims, widths = tuple(shape[1:]), len(shape) - 1, net.widths[::-1]
        outward = [*widths[1:], shape[0]]
        self.first = conv(dims, net.latent, widths[0], 3)
        self.levels = nn.ModuleList(nn.Sequential(*(ConvBlock(dims, w) for _ in range(net.blocks))) for w in widths)
        self.ups = nn.ModuleList(
            UP[dims - 1](a, b, 4, stride=2, padding=1) for a, b in zip(widths, outward, strict=True)
        )
        self.norm = ChannelNorm(widths[-1])

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(dense(z))
        for i, (level, up) in enumerate(zip(self.levels, self.ups, strict=True)):
            h = level(h)
            h = up(self.norm.activated(h) if i + 1 == len(self.ups) else h)
        return h[(..., *(slice(n) for n in self.grid))].float()


def networks(shape: Sequence[int], net: LatentShape) -> dict[str, nn.Module]:
    """Builds the modules of NETWORKS for fields of `shape` (C, *grid).

    With `kl` the encoder returns the mean and the log variance, concatenated along the channels.
    """
    quantiser: nn.Module = NoQuantiser()
    if net.bottleneck == "fsq":
        quantiser = FSQ(net.levels) if net.residual == 1 else ResidualFSQ(net.levels, net.residual)
    elif net.bottleneck == "vq":
        quantiser = VQ(net.codes, net.channels)
    out = 2 * net.latent if net.bottleneck == "kl" else net.latent
    return {"encoder": FieldEncoder(shape, net, out), "decoder": FieldDecoder(shape, net), "quantiser": quantiser}


def latents(modules: Mapping[str, nn.Module], net: LatentShape, x: Tensor) -> Tensor:
    """Encodes x without noise or quantisation: (B, latent, *latent_grid). With `kl` this is the mean."""
    out: Tensor = modules["encoder"](x)
    return out.chunk(2, 1)[0] if net.bottleneck == "kl" else out


class GaussianPrior(nn.Module):
    """N(mean, root root^T) over the D values of a latent, standard until fitted; with more than `MOST` values without
    covariances. Buffers alone: it is fitted after training, and moves no weight."""

    MOST = 1024

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape, d = tuple(shape), math.prod(shape)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("root", torch.eye(d) if d <= self.MOST else torch.ones(d))

    def forward(self, noise: Tensor) -> Tensor:
        """Standard normal noise (B, D) -> latents (B, *shape)."""
        root = self.get_buffer("root")
        moved = noise @ root if root.dim() == 2 else noise * root
        return (self.get_buffer("mean") + moved).view(-1, *self.shape)

    def fitted(self, z: Tensor) -> dict[str, Tensor]:
        """The buffers of the Gaussian of greatest likelihood for z (N, *shape): its mean and the symmetric root of its
        covariance."""
        rows = wide(z.flatten(1))
        mean = rows.mean(0)
        centred = rows - mean
        if self.get_buffer("root").dim() == 1:
            return {"mean": mean.float(), "root": centred.square().mean(0).sqrt().float()}
        value, vector = torch.linalg.eigh(centred.T @ centred / len(rows))
        root = vector * value.clamp_min(0).sqrt() @ vector.T
        return {"mean": mean.float(), "root": root.float()}
