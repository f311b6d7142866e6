"""A seeded tiny autoencoder of images, as a folder of TAESD, that gives squares of one colour back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from afresh.engine.nets.tiny_autoencoder import PARTS, TinyAutoencoder

WIDTH = 8  # channels of every layer
HALVINGS = 3  # of the grid: squares of 8 pixels are one cell of the latents
NOISE = 0.03  # share of a usual random initialisation that each weight has


def tiny_autoencoder(folder: Path, channels: int = 4, pooled: bool = False) -> Path:
    """Write encoder.safetensors and decoder.safetensors into a new folder, which is returned.

    channels: of the latents, at least 3. pooled: with a branch of 1x1 convolutions in the block on the smallest grid.
    Each weight is random. In the middle of the 3x3 convolutions is an identity, so that images of squares of 8 x 8
    pixels of one colour come back nearly as they were.
    """
    weights = {f"encoder.{k}": v for k, v in half("encoder", (3, channels), pooled).items()}
    weights |= {f"decoder.{k}": v for k, v in half("decoder", (channels, 3), pooled).items()}
    TinyAutoencoder(weights).load_state_dict(weights)
    folder.mkdir(parents=True)
    for part in PARTS:
        own = {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(part)}
        save_file(own, folder / f"{part}.safetensors")
    return folder


def half(part: str, ends: tuple[int, int], pooled: bool) -> dict[str, Tensor]:
    """The weights of the numbered layers of one half: a block of residuals on each grid."""
    random = torch.Generator().manual_seed(len(part) + ends[0])
    out: dict[str, Tensor] = {}

    def fill(name: str, net: nn.Module, identity: bool = True) -> None:
        for key, v in net.state_dict().items():
            bound = NOISE / (v[0].numel() if v.dim() > 1 else WIDTH) ** 0.5
            w = torch.empty(v.shape).uniform_(-bound, bound, generator=random)
            if identity and v.dim() == 4:
                w[:, :, 1, 1] += torch.eye(*v.shape[:2])
            out[f"{name}.{key}"] = w

    def block(number: int, pooled: bool) -> None:
        for i in (0, 2, 4):
            fill(f"{number}.conv.{i}", nn.Conv2d(WIDTH, WIDTH, 3), identity=False)
        if pooled:
            fill(f"{number}.pool.0", nn.Conv2d(WIDTH, WIDTH, 1, bias=False), identity=False)
            fill(f"{number}.pool.1", nn.GroupNorm(4, WIDTH))
            out[f"{number}.pool.1.weight"] += 1
            fill(f"{number}.pool.3", nn.Conv2d(WIDTH, WIDTH, 1, bias=False), identity=False)

    if part == "encoder":
        fill("0", nn.Conv2d(ends[0], WIDTH, 3))
        block(1, False)
        for i in range(1, HALVINGS + 1):
            fill(f"{2 * i}", nn.Conv2d(WIDTH, WIDTH, 3, bias=False))
            block(2 * i + 1, pooled and i == HALVINGS)
        fill(f"{2 * HALVINGS + 2}", nn.Conv2d(WIDTH, ends[1], 3))
        return out
    fill("1", nn.Conv2d(ends[0], WIDTH, 3))  # behind the bound
    block(3, pooled)  # behind a ReLU
    for i in range(1, HALVINGS + 1):
        fill(f"{3 * i + 2}", nn.Conv2d(WIDTH, WIDTH, 3, bias=False))  # behind a doubling
        block(3 * i + 3, False)
    fill(f"{3 * HALVINGS + 4}", nn.Conv2d(WIDTH, ends[1], 3))
    return out
