"""What a picture, or any field, is wanted to be like: differentiable functions x (B, C, *grid) -> (B,).

They are small where x is as wanted. Each is a sum of squares in the field's own units, so that weight 1 / (2 s^2)
allows deviations of about s.
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
FILTERS, SCALES, SIDE = 16, 3, 3  # of `texture`


def blocks(x: Tensor, factor: int) -> Tensor:
    """Means of factor^rank cells: (B, C, *grid) -> (B, C, *grid / factor)."""
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[x.dim() - 2]
    return pool(x, factor)


def agrees(low: Tensor, factor: int) -> Energy:
    """Agreement with a coarser field low (B, C, *grid / factor): the squared distance of the blocks' means."""
    return lambda x: (blocks(x, factor) - low.to(x)).square().flatten(1).sum(1)


def palette(colours: Tensor) -> Energy:
    """Every cell one of the colours (K, C): the squared distance to the nearest, over all cells."""

    def energy(x: Tensor) -> Tensor:
        cells = x.flatten(2).transpose(1, 2)  # (B, cells, C)
        return (cells[:, :, None] - colours.to(x)).square().sum(3).amin(2).sum(1)

    return energy


def differences(x: Tensor) -> Tensor:
    """Differences to the next cell along every axis, averaged over channels, (B, all)."""
    grey = x.mean(1)
    return torch.cat([grey.diff(dim=d).flatten(1) for d in range(1, grey.dim())], 1)


def edges(like: Tensor) -> Energy:
    """The edges of `like` (B, C, *grid), whatever the colours: the squared distance of the grey levels' differences."""
    wanted = differences(like)
    return lambda x: (differences(x) - wanted.to(x)).square().sum(1)


def texture(x: Tensor) -> list[Tensor]:
    """Statistics of x (B, C, *grid) that say nothing of places: Gram matrices of fixed random filters, at three scales.

    Gatys et al. 2016 ("Image style transfer using convolutional neural networks", eq. 3); that untrained filters will
    do is Ustyuzhaninov et al. 2016's ("Texture synthesis using shallow convolutional networks with random filters").
    """
    rank, channels, out = x.dim() - 2, x.shape[1], []
    for scale in range(SCALES):
        if min(x.shape[2:]) < SIDE:
            break
        shape = (channels, *[SIDE] * rank)
        weight = Rng(0).normal(f"texture/{rank}/{channels}/{scale}", torch.arange(FILTERS), shape).to(x)
        maps = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank](x, weight / math.sqrt(weight[0].numel()))
        maps = F.leaky_relu(maps, 0.2).flatten(2)
        maps = torch.cat([maps, torch.ones_like(maps[:, :1])], 1)  # means stand in the last row
        out.append(maps @ maps.transpose(1, 2) / maps.shape[2])
        x = blocks(x, 2) if min(x.shape[2:]) >= 2 else x
    return out


def style(like: Tensor) -> Energy:
    """The texture and colours of `like` (1 or B, C, *grid), wherever they are; times the number of cells, so that it
    weighs as much as the other energies."""
    wanted = [g.detach() for g in texture(like)]

    def energy(x: Tensor) -> Tensor:
        cells = x[0, 0].numel()
        found = texture(x)
        return cells * sum(
            ((a - b.to(a)).square().flatten(1).mean(1) for a, b in zip(found, wanted, strict=True)), x.new_zeros(len(x))
        )

    return energy


def by_name(name: str) -> Energy:
    """A user's own function, FILE.py:FUNCTION or MODULE:FUNCTION, of x (B, C, *grid) in [-1, 1] to (B,).

    Raises UserError when it cannot be loaded; what it gives does when it is not one number for each row.
    """
    source, colon, function = name.rpartition(":")
    if not colon or not source or not function:
        raise UserError(
            f"A function is named FILE.py:FUNCTION or MODULE:FUNCTION, as in mine.py:darker. Given: {name!r}."
        )
    try:
        found = getattr(of_file(Path(source)) if source.endswith(".py") else importlib.import_module(source), function)
    except Exception as e:  # a person's own code may raise anything
        raise UserError(
            f"{name} cannot be loaded: {e}. Give FILE.py:FUNCTION, or MODULE:FUNCTION where the module is installed or "
            "its folder in PYTHONPATH."
        ) from e
    if not callable(found):
        raise UserError(f"{name} is no function but {type(found).__name__}.")

    def energy(x: Tensor) -> Tensor:
        value = found(x)
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"{name} must give one number for each of the {len(x)} examples in x {tuple(x.shape)}: a tensor of "
                f"shape ({len(x)},), as .flatten(1).sum(1) makes. Given: {given}."
            )
        return value

    return energy


def of_file(file: Path) -> ModuleType:
    """A person's file as a module, which finds its neighbours. Raises whatever the file raises."""
    path = file.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"given_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def total(parts: Sequence[tuple[float, Energy]]) -> Energy | None:
    """The weighted sum of some energies; None of none."""
    if not parts:
        return None

    def energy(x: Tensor) -> Tensor:
        return sum((weight * e(x) for weight, e in parts), x.new_zeros(len(x)))

    return energy
