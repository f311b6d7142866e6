"""A device "pretended" that computes on the CPU but refuses what Apple's GPU refuses, for machines that have none.

None of its tensors may have float64, and an operation on tensors of two devices is refused. What a program would wait
for on a GPU is noted: reading a number, finding the places of a mask, and copying from memory that is not page-locked.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
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
SOURCES = Path(device.__file__).parents[1]
aten = torch.ops.aten
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}  # may have tensors of two devices
# Operations whose result, or the size of whose result, the processor needs before it can go on.
READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_dim.default,
    aten._unique2.default,
}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}

_waits: list[str] | None = None  # file:line of afresh and the operation of each wait, while they are noted


@contextmanager
def waits_noted() -> Iterator[list[str]]:
    """The waits of the block, as "file:line operation"."""
    global _waits
    before, _waits = _waits, []
    try:
        yield _waits
    finally:
        _waits = before


def note(operation: str) -> None:
    """Note that the program waits here for the device."""
    if _waits is not None:
        frames = [f for f in traceback.extract_stack() if SOURCES in Path(f.filename).parents]
        where = f"{Path(frames[-1].filename).relative_to(SOURCES)}:{frames[-1].lineno}" if frames else "?"
        _waits.append(f"{where} {operation}")


def note_waiting(func: Any, args: Any, kwargs: dict[str, Any], here: bool, asked: torch.device | None) -> None:
    """Note a wait if the operation is one, on tensors that are `here`, on the device."""
    if here and (func in READS or (func in INDEXED and any(i is not None and i.dtype is torch.bool for i in args[1]))):
        note(func.__name__)
    if func is aten._to_copy.default and asked is not None and here != (asked.type == NAME):
        goes_on = not here and kwargs.get("non_blocking")
    elif func is aten.copy_.default and isinstance(args[0], Pretended) != isinstance(args[1], Pretended):
        goes_on = isinstance(args[0], Pretended) and (*args[2:], kwargs.get("non_blocking"))[0]
    else:
        return
    if not goes_on:
        note("copy")


_float64 = False  # whether the device has it


class Pretended(Tensor):
    """A tensor of the CPU that says that it is on the device mps."""

    value: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        if inner.dtype in (torch.float64, torch.complex128) and not _float64:
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
    note_waiting(func, args, kwargs, bool(here), asked)
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
            if isinstance(args[0], Pretended):
                note("tolist")
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
def pretended_device(lacks_float64: bool = True) -> Iterator[None]:
    """Within the block, the device is there. It is known to have no float64, as Apple's GPU, or has it, as CUDA's."""
    global _float64
    _float64 = not lacks_float64
    _registered()
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # weights of the CPU cannot become pretended ones
    try:
        with (
            patch.object(device, "WITHOUT_FLOAT64", {NAME} if lacks_float64 else set()),
            patch.object(device, "PAGE_LOCKED", {NAME}),
            patch.object(Tensor, "pin_memory", Tensor.clone),
            _Made(),
            _Listed(),
        ):
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
