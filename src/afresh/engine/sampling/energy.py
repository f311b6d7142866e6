"""Energies of images and other fields: differentiable functions x (B, C, *grid) -> (B,), low for desired fields.

Each is a sum of squares in the units of the field, so that the weight 1 / (2 s^2) allows deviations of about s.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import UserError
from afresh.core.rng import Rng

Energy = Callable[[Tensor], Tensor]
FILTERS, SCALES, SIDE = 16, 3, 3  # number of filters, number of scales and size of the filters of `texture`


def blocks(x: Tensor, factor: int | tuple[int, ...]) -> Tensor:
    """Means of blocks of factor^rank cells, or of as many as are given for each axis: (B, C, *grid) -> (B, C, *grid /
    factor)."""
    return {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.dim() - 2](x, factor)


def agrees(low: Tensor, factor: int) -> Energy:
    """Agreement with a coarser field `low` (B, C, *grid / factor): the squared distance from the means of blocks."""
    return lambda x: (blocks(x, factor) - low.to(x)).square().flatten(1).sum(1)


def palette(colours: Tensor) -> Energy:
    """Agreement with a palette of colours (K, C): the squared distances of cells from their nearest colour."""

    def energy(x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)  # (B, cells, C)
        return (cells[:, :, None] - colours.to(x)).square().sum(3).amin(2).sum(1)

    return energy


def differences(x: Tensor) -> Tensor:
    """Differences between neighbouring cells along every axis, averaged over channels, (B, all)."""
    grey = x.mean(1)
    return torch.cat([grey.diff(dim=d).flatten(1) for d in range(1, grey.dim())], 1)


def edges(like: Tensor) -> Energy:
    """Agreement with the edges of `like` (B, C, *grid): the squared distance of the differences of grey levels."""
    target = differences(like)
    return lambda x: (differences(x) - target.to(x)).square().sum(1)


def texture(x: Tensor) -> list[Tensor]:
    """Statistics of x (B, C, *grid) independent of position: Gram matrices of fixed random filters at three scales.

    Gatys et al. 2016 ("Image style transfer using convolutional neural networks", eq. 3). Untrained filters suffice, as
    Ustyuzhaninov et al. 2016 showed ("Texture synthesis using shallow convolutional networks with random filters").
    """
    rank, channels, out = x.dim() - 2, x.shape[1], []
    for scale in range(SCALES):
        if min(x.shape[2:]) < SIDE:
            break
        shape = (channels, *[SIDE] * rank)
        weight = Rng(0).normal(f"texture/{rank}/{channels}/{scale}", torch.arange(FILTERS), shape).to(x)
        maps = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank](x, weight / math.sqrt(weight[0].numel()))
        maps = F.leaky_relu(maps, 0.2).flatten(2)
        maps = torch.cat([maps, torch.ones_like(maps[:, :1])], 1)  # the last row holds the means
        out.append(maps @ maps.transpose(1, 2) / maps.shape[2])
        x = blocks(x, 2) if min(x.shape[2:]) >= 2 else x
    return out


def style(like: Tensor) -> Energy:
    """Agreement with the texture and colours of `like` (1 or B, C, *grid), at any position.

    It is multiplied by the number of cells, so that it has the scale of the other energies.
    """
    target = [g.detach() for g in texture(like)]

    def energy(x: Tensor) -> Tensor:
        cells = x[0, 0].numel()
        gram = texture(x)
        return cells * sum(
            ((a - b.to(a)).square().flatten(1).mean(1) for a, b in zip(gram, target, strict=True)), x.new_zeros(len(x))
        )

    return energy


def by_name(name: str) -> Energy:
    """Load a user's function, FILE.py:FUNCTION or MODULE:FUNCTION, of x (B, C, *grid) in [-1, 1] to (B,).

    Raises UserError if it cannot be loaded. The returned energy raises UserError if the function does not return one
    number for each row.
    """
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute:
        raise UserError(
            f"Name a function as FILE.py:FUNCTION or MODULE:FUNCTION, such as mine.py:darker, not {name!r}."
        )
    try:
        module = of_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
        function = getattr(module, attribute)
    except Exception as e:  # a user's code may raise anything
        raise UserError(
            f"{name} cannot be loaded: {e}. Give FILE.py:FUNCTION, or MODULE:FUNCTION of a module that is installed or "
            "in PYTHONPATH."
        ) from e
    if not callable(function):
        raise UserError(f"{name} must be a function, not {type(function).__name__}.")

    def energy(x: Tensor) -> Tensor:
        value = function(x)
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{name} must return one number for each of the {len(x)} examples in x {tuple(x.shape)}, a tensor of "
                f"shape ({len(x)},), as .flatten(1).sum(1) does; it returned {kind}."
            )
        return value

    return energy


def of_file(file: Path) -> ModuleType:
    """Load a user's file as a module that can import its neighbours. Raises whatever the file raises."""
    path = file.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{file} does not exist")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def total(parts: Sequence[tuple[float, Energy]]) -> Energy | None:
    """The weighted sum of energies; None if there are none."""
    if not parts:
        return None

    def energy(x: Tensor) -> Tensor:
        return sum((weight * e(x) for weight, e in parts), x.new_zeros(len(x)))

    return energy
