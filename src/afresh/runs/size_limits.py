"""Bounds of what a run makes of its files: a network has no more weights than are stored, and an example has a size.

A run may come from anybody, and its run.json may describe what does not fit into memory. Each tensor of a network is
counted before it is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from afresh.core import CondSpec, Family, Space, UserError
from afresh.core.memory import available_memory
from afresh.core.safe_json import MOST_VALUES, reading

SHARED = 2  # times that a weight may be made: the output has a table of its own before it takes the embedding's
SLACK = 1 << 10  # weights that are allowed beyond those counted
MOST_TENSORS = 1 << 15  # of a network; the largest public ones have a few thousand
BYTES = 4  # of a weight


def bounded(family: Family, most: int, file: Path, held: int | None = None) -> Family:
    """The family, whose `build` ends with a UserError before it makes a network of more than `most` weights, or where
    such a network does not fit into the memory that is free, or cannot be built at all. `file`: the run.json;
    `held`: the bytes of the weights, if they are not BYTES each."""
    needed = BYTES * most if held is None else held

    def build(config: Any, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
        free = available_memory()
        if free is not None and needed > free:
            raise UserError(
                f"{file} describes a network of {most:,} weights, which need {needed:,} bytes; {free:,.0f} are free.",
                "no_memory",
            )
        with reading(file, "Was it changed by hand? Restore a copy of it."), counted(most, file):
            return family.build(config, space, conds)

    return replace(family, build=build)


@contextmanager
def counted(most: int, file: Path) -> Iterator[None]:
    """Within the block, count the storages of what modules register, each once however often it is registered, and the
    size of each tensor before it is allocated. Raises UserError if there is too much."""
    weights, buffers = Storages(), Storages()
    largest = SHARED * most + SLACK

    def check(single: int = 0) -> None:
        within = weights.total <= largest and buffers.total <= largest + MOST_VALUES
        if not within or len(weights) + len(buffers) > MOST_TENSORS or single > largest + MOST_VALUES:
            raise UserError(
                f"config in {file} describes a larger network than the {most:,} weights that the run has. Was it "
                "changed by hand? Restore a copy of it.",
                "weights_mismatch",
                file=str(file),
            )

    def parameter(module: nn.Module, name: str, value: Tensor) -> None:
        weights.add(value)
        check()

    def buffer(module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is not None:
            buffers.add(value)
            check()

    class Measured(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in MAKERS:
                check(size_of(func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    hooks = [register_module_parameter_registration_hook(parameter), register_module_buffer_registration_hook(buffer)]
    try:
        with Measured():
            yield
    finally:
        for hook in hooks:
            hook.remove()


class Storages(dict[int, int]):
    """The numbers of elements of storages by address. One at the address of a storage that was freed replaces it, so
    that the total is at least that of the storages in use."""

    total = 0

    def add(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        size = storage.nbytes() // value.element_size()
        self.total += size - self.get(storage._cdata, 0)
        self[storage._cdata] = size


# Functions that make a tensor of a given size.
MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.arange}


def size_of(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> int:
    """The number of elements that a call of one of MAKERS would make; 0 where it is not told by plain numbers."""
    numbers = args or tuple(named[k] for k in ("size", "n", "m", "start", "end") if k in named)
    if numbers and isinstance(numbers[0], tuple | list):  # torch.Size is a tuple
        numbers = tuple(numbers[0])
    elif func is torch.full:
        return 0
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return 0
    if func is torch.arange:
        start, end, step = (0, *numbers, 1)[:3] if len(numbers) == 1 else (*numbers, 1)[:3]
        return int((end - start) / step) if step else 0
    if func is torch.eye and len(numbers) == 1:
        numbers = (*numbers, *numbers)
    return math.prod(map(int, numbers))


def check_space(space: Space, file: Path) -> None:
    """Raises UserError if an example of a space has more than MOST_VALUES values, or more ids than a tokenizer has."""
    values, ids = math.prod(space.shape), max(space.vocab, default=0)
    if not 1 <= values <= MOST_VALUES or ids > MOST_VALUES:
        raise UserError(
            f"{file} describes examples of {values:,} values{f' with {ids:,} ids' if ids else ''}; at most "
            f"{MOST_VALUES:,} are accepted.",
            "damaged",
            file=str(file),
        )
