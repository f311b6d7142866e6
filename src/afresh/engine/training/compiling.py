"""torch.compile where it works. It needs more than a compiler: the headers of Python, or Triton on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor, nn


@cache
def compile_fault(device: str) -> str | None:
    """Why torch.compile does not work on the device, in one line; None if it works. Takes some seconds, once.

    A small function is compiled, for a size that hardly recurs, so that no result of an earlier process answers for the
    compiler.
    """
    size = 1_000 + time.time_ns() % 100_003

    def probe(x: Tensor) -> Tensor:
        return (x.sin() * x).sum()

    try:
        torch.compile(probe)(torch.ones(size, device=device))
    except Exception as error:  # of torch, of the compiler and of the system, which have no common class
        return first_reason(str(error)) or type(error).__name__
    return None


def first_reason(message: str) -> str:
    """The line of a compiler's message that names the error, or else its first line; at most 200 characters."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    named = [line for line in lines if "error: " in line]
    return (named or lines or [""])[0][:200]


def undo_compile(networks: Iterable[nn.Module]) -> bool:
    """Let networks compute without torch.compile from now on. Returns whether a part of them was compiled."""
    compiled = [m for net in networks for m in net.modules() if m._compiled_call_impl is not None]
    for m in compiled:
        m._compiled_call_impl = None
    return bool(compiled)
