"""Tiny autoencoders of images (TAESD, github madebyollin/taesd; `AutoencoderTiny` in diffusers), built from the names
and shapes of their weights.

Both halves are chains of 3x3 convolutions and residual blocks, whose layers are numbered. In an encoder, a convolution
without bias halves the grid. In a decoder, it follows a doubling of the grid by repetition.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BOUND = 3.0  # a decoder maps its input z to BOUND tanh(z / BOUND)
GROUPS = 4  # of the normalisation in the branch of 1x1 convolutions
PARTS = ("encoder", "decoder")
MOST_LAYERS, MOST_WIDTH = 64, 1024


class Bound(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return BOUND * torch.tanh(z / BOUND)


class TinyBlock(nn.Module):
    """relu(conv(x) + skip(x)): (B, a, H, W) -> (B, b, H, W). With `pooled` channels above 0, a branch of 1x1
    convolutions is first added to x."""

    def __init__(self, a: int, b: int, pooled: int = 0) -> None:
        super().__init__()
        convs = [m for n in (a, b, b) for m in (nn.Conv2d(n, b, 3, padding=1), nn.ReLU(True))]
        self.conv = nn.Sequential(*convs[:-1])
        self.skip = nn.Conv2d(a, b, 1, bias=False) if a != b else nn.Identity()
        self.pool = None
        if pooled:
            first, last = nn.Conv2d(a, pooled, 1, bias=False), nn.Conv2d(pooled, a, 1, bias=False)
            self.pool = nn.Sequential(first, nn.GroupNorm(GROUPS, pooled), nn.ReLU(True), last)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else x + self.pool(x)
        return torch.relu(self.conv(x) + self.skip(x))


class TinyAutoencoder(nn.Module):
    """`encoder`: images (B, 3, H, W) in [0, 1] -> z (B, channels, H / factor, W / factor); `decoder`: back."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """The networks of `weights`, named encoder.N... and decoder.N..., with random values. Raises ValueError for
        names and shapes of another architecture."""
        super().__init__()
        self.encoder = chain(weights, "encoder")
        self.decoder = chain(weights, "decoder")
        first, last = self.encoder[0], self.decoder[-1]
        halved = sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in self.encoder)
        doubled = sum(isinstance(m, nn.Upsample) for m in self.decoder)
        inner = self.encoder[-1], self.decoder[1]
        if not all(isinstance(m, nn.Conv2d) for m in (first, last, *inner)) or halved != doubled:
            raise ValueError("the encoder and the decoder do not fit together")
        self.channels, self.factor = int(inner[1].in_channels), 2**halved  # type: ignore[arg-type]
        if (first.in_channels, last.out_channels, inner[0].out_channels) != (3, 3, self.channels):
            raise ValueError("it does not encode images of three channels")

    def encode(self, x: Tensor) -> Tensor:
        """z of images in [-1, 1]."""
        z: Tensor = self.encoder((x + 1) / 2)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Images in about [-1, 1] of z."""
        x: Tensor = 2 * self.decoder(z) - 1
        return x


def chain(weights: Mapping[str, Tensor], part: str) -> nn.Sequential:
    """One half, by the weights of its numbered layers. Raises ValueError for weights of another architecture."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        half, place, rest = name.split(".", 2)
        if half == part:
            layers.setdefault(int(place), {})[rest] = tensor
    if not layers or max(layers) > MOST_LAYERS:
        raise ValueError(f"it has no {part} of numbered layers")
    decodes = part == "decoder"
    out: list[nn.Module] = [nn.Identity() for _ in range(max(layers) + 1)]
    if decodes:
        out[0], out[2] = Bound(), nn.ReLU(True)
    for number, own in sorted(layers.items()):
        if max(n for t in own.values() for n in t.shape) > MOST_WIDTH:
            raise ValueError(f"layer {number} of its {part} has more than {MOST_WIDTH:,} channels")
        if "weight" not in own:
            b, a = own["conv.0.weight"].shape[:2]
            out[number] = TinyBlock(a, b, len(own["pool.0.weight"]) if "pool.0.weight" in own else 0)
            continue
        b, a = own["weight"].shape[:2]
        plain = "bias" in own
        out[number] = nn.Conv2d(a, b, 3, 1 if plain or decodes else 2, padding=1, bias=plain)
        if decodes and not plain:
            out[number - 1] = nn.Upsample(scale_factor=2)
    return nn.Sequential(*out)


def numbered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as TAESD numbers its layers. diffusers has the bound of the decoder elsewhere, so that its layers begin
    one earlier, and calls each half `layers`."""
    named = {name.replace(".layers.", ".", 1): v for name, v in weights.items()}
    if "decoder.0.weight" not in named:
        return named
    parts = (name.split(".", 2) for name in named)
    return {
        ".".join((part, str(int(number) + (part == "decoder")), rest)): v
        for (part, number, rest), v in zip(parts, named.values(), strict=True)
    }


def blocks_by_grid(half: nn.Sequential) -> list[int]:
    """The number of residual blocks on each grid of an encoder or decoder."""
    counts = [0]
    for layer in half:
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            counts.append(0)
        counts[-1] += isinstance(layer, TinyBlock)
    return counts
