"""The network of a run: counted without memory, built on its device, and computed in the precision of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from afresh.core import CondSpec, Family, Space
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.weights import BaseWeights


class MetaParameters(TorchFunctionMode):
    """Create parameters on the meta device, without memory or values, and leave all other operations unchanged.

    The context torch.device("meta") would do the same, but its first random fill and its first table of positions
    import modules that take a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **({**kwargs, "device": "meta"} if func is torch.empty else kwargs))


def empty_network(family: Family, config: Any, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """The modules without memory for their weights."""
    with MetaParameters():
        return family.build(config, space, conds)


def parameters_of(family: Family, config: Any, space: Space, conds: CondSpec) -> int:
    """The number of trainable parameters, counted without allocating them."""
    return sum(p.numel() for m in empty_network(family, config, space, conds).values() for p in m.parameters())


def to_device(modules: Mapping[str, nn.Module], device: str) -> dict[str, nn.Module]:
    """Move modules to the device. Two-dimensional convolutions get the memory format channels_last, which is faster."""
    out = {k: m.to(device) for k, m in modules.items()}
    if any(p.dim() == 4 for m in out.values() for p in m.parameters()):
        out = {k: m.to(memory_format=torch.channels_last) for k, m in out.items()}  # type: ignore[call-overload]
    return out


def build_network(
    family: Family, config: Any, space: Space, conds: CondSpec, device: str, base: BaseWeights | None, seed: int
) -> dict[str, nn.Module]:
    """The modules on the device, with random weights or those of `base` and its new adapter. Weights in few bits are
    not there in more bits even for a moment."""
    if base is not None and base.few_bits:
        return to_device(base.apply(empty_network(family, config, space, conds), seed), device)
    modules = to_device(family.build(config, space, conds), device)
    return modules if base is None else base.apply(modules, seed)


@contextmanager
def precision(config: TrainConfig) -> Iterator[None]:
    """Compute matrix products in the precision of the configuration."""
    dtype = torch.float16 if config.precision == "float16" else torch.bfloat16
    with torch.autocast(torch.device(config.device).type, dtype=dtype, enabled=config.precision != "float32"):
        yield
