"""A device "pretended" that computes on the CPU but refuses what Apple's GPU refuses, for machines that have none.

None of its tensors may have float64, and an operation on tensors of two devices is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from afresh.core import device

NAME = "pretended"
CPU = torch.device("cpu")
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}  # may have tensors of two devices


class Pretended(Tensor):
    """A tensor of the CPU that says that it is on the device mps."""

    value: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError("The device has no float64.")
        out: Pretended = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
            requires_grad=inner.requires_grad,
        )
        out.value = inner
        return out

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation on the CPU, on the device where it belongs."""
    tensors: list[Tensor] = []

    def inner(t: Tensor) -> Tensor:
        tensors.append(t)
        return t.value if isinstance(t, Pretended) else t

    inner_args, inner_kwargs = _each(inner, args), _each(inner, kwargs)
    here = [t for t in tensors if isinstance(t, Pretended)]
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if func not in MOVES and here and any(t.dim() and not isinstance(t, Pretended) for t in tensors):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found pretended:0 and cpu")
    if not here and (asked is None or asked.type != NAME):
        return func(*args, **kwargs)
    stays = bool(here) if asked is None else asked.type == NAME
    if func is torch.ops.aten.copy_.default:
        stays = isinstance(args[0], Pretended)
    if asked is not None:
        inner_kwargs["device"] = CPU if asked.type == NAME else asked
    out = func(*inner_args, **inner_kwargs)
    if func is torch.ops.aten._to_copy.default and not stays:
        return out
    if not stays:
        return args[0] if func is torch.ops.aten.copy_.default else out
    out = _each(Pretended, out)
    return return_and_correct_aliasing(func, args, kwargs, out) if _aliases(func) else out


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor changed. torch's own trees take several times as long, at each operation."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)([_each(change, v) for v in value])
    return {k: _each(change, v) for k, v in value.items()} if type(value) is dict else value


@cache
def _aliases(func: Any) -> bool:
    """Whether an operation returns a view of what it is given, or that itself: most return something new."""
    return any(r.alias_info is not None for r in func._schema.returns)


class _Made(TorchDispatchMode):
    """Makes new tensors on the device that are asked for there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class _Listed(TorchFunctionMode):
    """Turns lists into tensors and back, where torch itself would go round the classes of this file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.tolist:
            return func(args[0].value if isinstance(args[0], Pretended) else args[0])
        if func is Tensor.__setitem__ and isinstance(args[0], Pretended) and isinstance(args[1], tuple):
            x, key, value = args
            return func(x, tuple(torch.tensor(k).to(x.device) if isinstance(k, list) else k for k in key), value)
        if func is Tensor.new_tensor or (func is torch.tensor and kwargs.get("device") is not None):
            device = kwargs.pop("device", args[0].device if func is Tensor.new_tensor else None)
            return torch.tensor(args[-1], **({"dtype": args[0].dtype} if func is Tensor.new_tensor else kwargs)).to(
                device
            )
        return func(*args, **kwargs)


class _Module(_DummyBackendModule):
    """What torch asks a device's module for autocast."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


@cache
def _registered() -> None:
    _setup_privateuseone_for_python_backend(NAME, _Module())


@contextmanager
def pretended_device() -> Iterator[None]:
    """Within the block, the device is there, and known to have no float64."""
    _registered()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # weights of the CPU cannot become pretended ones
    try:
        with _Made(), _Listed(), patch.object(device, "WITHOUT_FLOAT64", {NAME}):
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
