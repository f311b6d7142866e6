"""The device that was chosen, and arithmetic in float64 beside devices that have none.

Apple's GPU (mps) computes in float32 at most. What needs float64 there is computed on the CPU and moved. Elsewhere it
stays on its device, so that the results on a CPU or with CUDA are those of plain float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

WITHOUT_FLOAT64 = frozenset({"mps"})  # types of devices

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
