"""Built-in rewards for images, each a differentiable function of a field x (B, C, H, W) in [-1, 1], C = 1 or 3.

Decoded images (uint8) are scored by the same function in float64. Colours and grey levels range from 0 (black) to 1.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afresh.core import UserError
from afresh.data.image.kind import IMAGE
from afresh.engine.alignment.rewards.field_rewards import LUMA, Field, dct, of_field, to_field
from afresh.engine.alignment.rewards.reward import Builtin, Context, Reward, options, whole_file

TINY = 1e-6  # variance of pixels that is treated as zero; a deviation of a thousandth of black to white
LOW_FREQUENCIES = 0.25  # share of the frequencies along each axis that counts as low
BLUR_DEVIATION = 1 / 16  # standard deviation of the blur of `near`, as a share of each side
CHUNK_SIZE = 1024  # training images that are compared together


def plain(name: str, on_field: Field) -> Callable[[str | None, Context], Reward]:
    """The function that makes a reward without options."""

    def make(argument: str | None, context: Context) -> Reward:
        options(name, argument, {})
        return of_field(on_field)

    return make


def grey(x: Tensor) -> Tensor:
    """Grey levels 0 to 1, (B, H, W)."""
    levels = (x + 1) / 2
    return levels[:, 0] if x.shape[1] == 1 else (levels * x.new_tensor(LUMA)[:, None, None]).sum(1)


def coloured(x: Tensor) -> Tensor:
    """Red, green and blue in [0, 1], (B, 3, H, W)."""
    return ((x + 1) / 2).expand(-1, 3, -1, -1)


def brightness(x: Tensor) -> Tensor:
    """The mean grey level, 0 for black to 1 for white."""
    return grey(x).mean((1, 2))


def symmetry(x: Tensor) -> Tensor:
    """The share of the variance that an image has in common with its mirror image, left and right exchanged.

    x is the sum of (x + mirror) / 2 and (x - mirror) / 2, whose squares add up. The reward is 1 if the second is zero,
    as for a single colour, and 0 if the first is constant. It does not depend on contrast.
    """
    levels = (x + 1) / 2
    odd = ((levels - levels.flip(3)) / 2).square().mean((1, 2, 3))
    variance = (levels - levels.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    return 1 - odd / (variance + TINY)


def compressible(x: Tensor) -> Tensor:
    """The share of the grey levels' variance in the lowest quarter of the frequencies along both axes, 0 to 1.

    Black et al. 2024 reward a small JPEG file instead, but headers dominate the file size of small images. The reward
    of a single colour is 1.
    """
    levels = grey(x)
    high, wide = levels.shape[1:]
    energy = (dct(high).to(x) @ levels @ dct(wide).to(x).T).square() / (high * wide)
    fine = (torch.arange(high)[:, None] >= LOW_FREQUENCIES * high) | (torch.arange(wide) >= LOW_FREQUENCIES * wide)
    fine[0, 0] = False
    total = energy.flatten(1).sum(1) - energy[:, 0, 0]  # without the mean
    return 1 - (energy * fine.to(x)).flatten(1).sum(1) / (total + TINY)


def sharpness(x: Tensor) -> Tensor:
    """The variance of the grey levels' Laplacian (Pech-Pacheco et al. 2000): 1 for a checkerboard, 0 for one colour."""
    levels = grey(x)
    if min(levels.shape[1:]) < 3:
        raise UserError("The reward sharpness needs images of at least 3 x 3 pixels.")
    middle = levels[:, 1:-1, 1:-1]
    around = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:]
    return (around - 4 * middle).flatten(1).var(1, correction=0) / 16


def colour(argument: str | None, context: Context) -> Reward:
    """1 minus the mean squared distance to a colour, over pixels and channels: 1 for that colour, 0 for black instead
    of white."""
    if not argument or not re.fullmatch("#[0-9a-fA-F]{6}", argument):
        raise UserError(f"The reward colour needs a colour as in colour:#ff8800. Given: {argument or 'nothing'}.")
    wanted = [int(argument[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def on_field(x: Tensor) -> Tensor:
        return 1 - (coloured(x) - x.new_tensor(wanted)[:, None, None]).square().mean((1, 2, 3))

    return of_field(on_field)


def blur(x: Tensor) -> Tensor:
    """x (B, C, H, W) after a Gaussian blur of BLUR_DEVIATION times each side, with reflection at the edges."""
    for axis in (2, 3):
        n = x.shape[axis]
        cells = torch.arange(n, dtype=torch.float64)
        sigma = BLUR_DEVIATION * n
        reflected = [2 * n * k + s for k in (-1, 0, 1) for s in (cells, -1 - cells)]  # the mirror images of each cell
        kernel = sum(
            (torch.exp(-((r - cells[:, None]) ** 2) / (2 * sigma**2)) for r in reflected), torch.zeros(n, n).double()
        )
        kernel = kernel / kernel.sum(1, keepdim=True)
        x = torch.tensordot(x, kernel.to(x), ([axis], [1])).movedim(-1, axis)
    return x


def open_image(path: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise UserError(f"The reward near: {path} cannot be read as an image ({e}). Name a PNG or JPEG file.") from None


def near(argument: str | None, context: Context) -> Reward:
    """1 minus the mean squared difference to an image after a blur of both; 0 for black instead of white.

    The image is resized to the size of the scored images, and converted to grey if they are grey.
    """
    if not argument:
        raise UserError("The reward near needs an image, as in near:cat.png.")
    image = open_image(argument)
    wanted: dict[tuple[int, ...], Tensor] = {}

    def on_field(x: Tensor) -> Tensor:
        channels, high, wide = x.shape[1:]
        if x.shape[1:] not in wanted:
            scaled = image.resize((wide, high), Image.Resampling.BOX)
            pixels = to_field(np.asarray(scaled))[None]
            wanted[x.shape[1:]] = blur(grey(pixels)[:, None] * 2 - 1 if channels == 1 else pixels)
        return 1 - ((blur(x) - wanted[x.shape[1:]].to(x)) / 2).square().mean((1, 2, 3))

    return of_field(on_field)


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """The root mean square distance (B,) of x (B, D), levels 0 to 1, to the nearest of train (N, D) uint8."""
    with torch.no_grad():
        best, row = torch.full((len(x),), math.inf).to(x), torch.zeros(len(x), dtype=torch.long, device=x.device)
        for i in range(0, len(train), CHUNK_SIZE):
            chunk = train[i : i + CHUNK_SIZE].to(x) / 255
            distances, index = torch.cdist(x, chunk).min(1)
            row = torch.where(distances < best, index + i, row)
            best = torch.minimum(distances, best)
    distance = (x - train[row.to(train.device)].to(x) / 255).square().mean(1)
    return (distance + TINY**2).sqrt() - TINY  # differentiable at distance 0


def novel(argument: str | None, context: Context) -> Reward:
    """The distance to the nearest training image, by pixels: 0 for a copy, 1 for black instead of white."""
    options("novel", argument, {})
    if not len(context.train):
        raise UserError("The reward novel needs training images, which are not available here.")
    groups: dict[tuple[int, ...], list[Any]] = {}
    for item in context.train:
        pixels = torch.tensor(np.moveaxis(item, 2, 0))
        groups.setdefault(tuple(pixels.shape), []).append(pixels.flatten())
    train = {shape: torch.stack(rows) for shape, rows in groups.items()}

    def on_field(x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) not in train:
            raise UserError(
                f"The reward novel compares images of one size. Given: {tuple(x.shape[1:])} (channels, height, width); "
                f"the training images have {', '.join(map(str, train))}."
            )
        return nearest(((x + 1) / 2).flatten(1), train[tuple(x.shape[1:])])

    return of_field(on_field)


IMAGES = {
    "brightness": Builtin(plain("brightness", brightness), "mean grey level, 0 (black) to 1 (white)", gradient=True),
    "symmetry": Builtin(
        plain("symmetry", symmetry), "share of the variance that left and right have in common, 0 to 1", gradient=True
    ),
    "compressible": Builtin(
        plain("compressible", compressible), "share of the variance in low frequencies, 0 to 1", gradient=True
    ),
    "sharpness": Builtin(
        plain("sharpness", sharpness), "variance of the Laplacian, 0 (one colour) to 1 (checkerboard)", gradient=True
    ),
    "colour": Builtin(colour, "colour:#rrggbb, similarity of all pixels to a colour, 0 to 1", gradient=True),
    "near": Builtin(near, "near:FILE, similarity to an image by pixels after a blur, 0 to 1", True, whole_file),
    "novel": Builtin(novel, "distance to the nearest training image by pixels, 0 to 1", gradient=True),
}
REWARDS = {IMAGE.name: IMAGES}
