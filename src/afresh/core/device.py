"""The device that was chosen, how it computes, and arithmetic in float64 beside devices that have none.

Apple's GPU (mps) computes in float32 at most. What needs float64 there is computed on the CPU and moved. Elsewhere it
stays on its device, so that the results on a CPU or with CUDA are those of plain float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

WITHOUT_FLOAT64 = frozenset({"mps"})  # types of devices
PAGE_LOCKED = frozenset({"cuda"})  # types of devices that copy from page-locked memory while the processor goes on

_chosen: ContextVar[str | None] = ContextVar("device", default=None)


@contextmanager
def computing_on(device: str | None) -> Iterator[None]:
    """Within the block, `computing_device` is this one; None leaves the choice as it is."""
    token = _chosen.set(device or _chosen.get())
    try:
        yield
    finally:
        _chosen.reset(token)


def computing_device() -> torch.device:
    """The device for networks that help to read data: that of the run, by default CUDA's if it is available."""
    return torch.device(_chosen.get() or ("cuda" if torch.cuda.is_available() else "cpu"))


def float64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU if it has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def wide(x: Tensor) -> Tensor:
    """x in float64, on its device or, if that has no float64, on the CPU."""
    return x.to(float64_device(x.device)).double()


@contextmanager
def tensor_cores(device: str | torch.device) -> Iterator[None]:
    """Within the block, products of float32 matrices on CUDA are computed in TF32 (10 bits of mantissa), as cuDNN
    computes convolutions in any case. Nothing changes on other devices, or on a GPU that has no TF32."""
    if torch.device(device).type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def tensor_on(device: torch.device, values: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    """torch.tensor(values), on the device, to which it is copied without waiting for what the device computes."""
    made = torch.tensor(values, dtype=dtype)
    if device.type in PAGE_LOCKED:
        return made.pin_memory().to(device, non_blocking=True)
    return made.to(device)


def read(values: Mapping[str, Tensor], device: torch.device) -> dict[str, float]:
    """Tensors of one element as numbers, in a single transfer from the device, where each transfer stalls it."""
    kind = torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
    far = {k: v.detach().reshape(()).to(kind) for k, v in values.items() if v.device.type != "cpu"}
    numbers = dict(zip(far, torch.stack(list(far.values())).tolist(), strict=True)) if far else {}
    return {k: numbers[k] if k in far else float(v.detach().to(kind)) for k, v in values.items()}
