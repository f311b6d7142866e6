"""Built-in rewards for pictures, each a differentiable function of a field x (B, C, H, W) in [-1, 1], C = 1 or 3.

The plain form on bytes is the same function in float64. Colours and grey levels are counted from 0 (black) to 1.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afresh.alignment.rewards.reward import Array, Builtin, Context, Failed, Request, Reward, options
from afresh.core import UserError
from afresh.data.image.kind import IMAGE

Field = Callable[[Tensor], Tensor]
LUMA = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)
TINY = 1e-6  # variance per pixel, of 1, that counts as none: a thousandth of black to white
LOW = 0.25  # of the frequencies along each axis
BLUR = 1 / 16  # of the picture's side: the standard deviation of near's blur
CHUNK = 1024  # training pictures compared at once


def to_field(picture: np.ndarray) -> Tensor:
    """uint8 (H, W, C) -> float64 (C, H, W) in [-1, 1]."""
    return torch.tensor(np.moveaxis(picture, 2, 0)).double() / 127.5 - 1  # a copy: pictures may be read-only


def of_field(on_field: Field) -> Reward:
    """The reward with this differentiable form; pictures of one size are scored together."""

    def score(items: Sequence[np.ndarray], requests: Sequence[Request]) -> Array:
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(items):
            if item.ndim != 3 or item.shape[2] not in (1, 3) or item.dtype != np.uint8 or not item.size:
                raise Failed(f"no uint8 picture (H, W, 1 or 3) but {item.dtype} {item.shape}.", i)
            shapes.setdefault(item.shape, []).append(i)
        out = np.zeros(len(items))
        with torch.no_grad():
            for rows in shapes.values():
                out[rows] = on_field(torch.stack([to_field(items[i]) for i in rows])).numpy()
        return out

    return Reward("", score, IMAGE, on_field)


def plain(name: str, on_field: Field) -> Callable[[str | None, Context], Reward]:
    """The maker of a reward that has no options."""

    def make(argument: str | None, context: Context) -> Reward:
        options(name, argument, {})
        return of_field(on_field)

    return make


def grey(x: Tensor) -> Tensor:
    """Grey levels 0 to 1, (B, H, W)."""
    levels = (x + 1) / 2
    return levels[:, 0] if x.shape[1] == 1 else (levels * x.new_tensor(LUMA)[:, None, None]).sum(1)


def coloured(x: Tensor) -> Tensor:
    """Red, green and blue, 0 to 1, (B, 3, H, W)."""
    return ((x + 1) / 2).expand(-1, 3, -1, -1)


def brightness(x: Tensor) -> Tensor:
    """The mean grey level: 0 black, 1 white."""
    return grey(x).mean((1, 2))


def symmetry(x: Tensor) -> Tensor:
    """The share of the variance that a picture has in common with its mirror image, left and right exchanged.

    x is the sum of (x + mirror) / 2 and (x - mirror) / 2, whose squares add up; 1 where the second is nothing (so for
    one colour), 0 where the first is flat. Contrast does not matter.
    """
    levels = (x + 1) / 2
    odd = ((levels - levels.flip(3)) / 2).square().mean((1, 2, 3))
    variance = (levels - levels.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    return 1 - odd / (variance + TINY)


def dct(n: int) -> Tensor:
    """The orthonormal discrete cosine transform, float64 (n, n), a row a frequency (Ahmed et al. 1974, eq. 1)."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def compressible(x: Tensor) -> Tensor:
    """The share of the grey levels' variance in the lowest quarter of the frequencies along both axes, 0 to 1.

    Black et al. 2024 reward a small JPEG file; in small pictures its headers outweigh what is drawn. One
    colour has all of its variance (none) there.
    """
    levels = grey(x)
    high, wide = levels.shape[1:]
    energy = (dct(high).to(x) @ levels @ dct(wide).to(x).T).square() / (high * wide)
    fine = (torch.arange(high)[:, None] >= LOW * high) | (torch.arange(wide) >= LOW * wide)
    fine[0, 0] = False
    total = energy.flatten(1).sum(1) - energy[:, 0, 0]  # without the mean, which costs nothing
    return 1 - (energy * fine.to(x)).flatten(1).sum(1) / (total + TINY)


def sharpness(x: Tensor) -> Tensor:
    """The variance of the grey levels' Laplacian (Pech-Pacheco et al. 2000): a checkerboard has 1, one colour 0."""
    levels = grey(x)
    if min(levels.shape[1:]) < 3:
        raise UserError("The reward sharpness needs pictures of at least 3 x 3 pixels.")
    middle = levels[:, 1:-1, 1:-1]
    around = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:]
    return (around - 4 * middle).flatten(1).var(1, correction=0) / 16


def colour(argument: str | None, context: Context) -> Reward:
    """1 minus the mean squared distance to a colour, over pixels and channels: 1 that colour, 0 black for white."""
    if not argument or not re.fullmatch("#[0-9a-fA-F]{6}", argument):
        raise UserError(f"The reward colour needs a colour as in colour:#ff8800. Given: {argument or 'nothing'}.")
    wanted = [int(argument[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    def on_field(x: Tensor) -> Tensor:
        return 1 - (coloured(x) - x.new_tensor(wanted)[:, None, None]).square().mean((1, 2, 3))

    return of_field(on_field)


def blur(x: Tensor) -> Tensor:
    """A Gaussian of BLUR times each side, the picture going on mirrored beyond its edges: like x (B, C, H, W)."""
    for axis in (2, 3):
        n = x.shape[axis]
        places = torch.arange(n, dtype=torch.float64)
        sigma = BLUR * n
        folds = [2 * n * k + s for k in (-1, 0, 1) for s in (places, -1 - places)]  # the mirror images of each cell
        kernel = sum(
            (torch.exp(-((f - places[:, None]) ** 2) / (2 * sigma**2)) for f in folds), torch.zeros(n, n).double()
        )
        kernel = kernel / kernel.sum(1, keepdim=True)
        x = torch.tensordot(x, kernel.to(x), ([axis], [1])).movedim(-1, axis)
    return x


def open_picture(path: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise UserError(
            f"The reward near: {path} cannot be read as a picture ({e}). Name a PNG or JPEG file."
        ) from None


def near(argument: str | None, context: Context) -> Reward:
    """1 minus the mean squared difference to a picture after a blur of both; 0 is black for white.

    The picture is brought to the size of what is scored, and to grey where that is grey.
    """
    if not argument:
        raise UserError("The reward near needs a picture, as in near:cat.png.")
    picture = open_picture(argument)
    wanted: dict[tuple[int, ...], Tensor] = {}

    def on_field(x: Tensor) -> Tensor:
        channels, high, wide = x.shape[1:]
        if x.shape[1:] not in wanted:
            scaled = picture.resize((wide, high), Image.Resampling.BOX)
            pixels = to_field(np.asarray(scaled))[None]
            wanted[x.shape[1:]] = blur(grey(pixels)[:, None] * 2 - 1 if channels == 1 else pixels)
        return 1 - ((blur(x) - wanted[x.shape[1:]].to(x)) / 2).square().mean((1, 2, 3))

    return of_field(on_field)


def nearest(x: Tensor, train: Tensor) -> Tensor:
    """The root mean square distance of x (B, D) to the nearest of train (N, D) uint8; levels 0 to 1, (B,)."""
    with torch.no_grad():
        best, row = torch.full((len(x),), math.inf).to(x), torch.zeros(len(x), dtype=torch.long, device=x.device)
        for i in range(0, len(train), CHUNK):
            some = train[i : i + CHUNK].to(x) / 255
            found, where = torch.cdist(x, some).min(1)
            row = torch.where(found < best, where + i, row)
            best = torch.minimum(found, best)
    distance = (x - train[row.to(train.device)].to(x) / 255).square().mean(1)
    return (distance + TINY**2).sqrt() - TINY  # smooth where the distance is 0


def novel(argument: str | None, context: Context) -> Reward:
    """The distance to the nearest training picture, by pixels: 0 a copy, 1 black for white."""
    options("novel", argument, {})
    if not len(context.train):
        raise UserError("The reward novel needs the training pictures, and there are none here.")
    groups: dict[tuple[int, ...], list[Any]] = {}
    for item in context.train:
        pixels = torch.tensor(np.moveaxis(item, 2, 0))
        groups.setdefault(tuple(pixels.shape), []).append(pixels.flatten())
    train = {shape: torch.stack(rows) for shape, rows in groups.items()}

    def on_field(x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) not in train:
            raise UserError(
                f"The reward novel compares pictures of one size: {tuple(x.shape[1:])} given, and the training "
                f"pictures have {', '.join(map(str, train))} (channels, height, width)."
            )
        return nearest(((x + 1) / 2).flatten(1), train[tuple(x.shape[1:])])

    return of_field(on_field)


IMAGES = {
    "brightness": Builtin(plain("brightness", brightness), "mean grey level, 0 black to 1 white", gradient=True),
    "symmetry": Builtin(
        plain("symmetry", symmetry), "share of what left and right have in common, 0 to 1", gradient=True
    ),
    "compressible": Builtin(
        plain("compressible", compressible), "share of the variance in low frequencies, 0 to 1", gradient=True
    ),
    "sharpness": Builtin(
        plain("sharpness", sharpness), "variance of the Laplacian, 0 flat to 1 checkerboard", gradient=True
    ),
    "colour": Builtin(colour, "colour:#rrggbb, nearness of all pixels to a colour, 0 to 1", gradient=True),
    "near": Builtin(near, "near:FILE, likeness to a picture by pixels after a blur, 0 to 1", gradient=True),
    "novel": Builtin(novel, "distance to the nearest training picture by pixels, 0 to 1", gradient=True),
}
REWARDS = {IMAGE.name: IMAGES}
