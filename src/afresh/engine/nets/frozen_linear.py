"""Linear layers with frozen weights in 8 or 4 bits, so that a large base fits a small memory (Dettmers et al. 2023,
QLoRA, sections 2 and 3).

Blocks of BLOCK weights have a scale in common, their largest magnitude. A weight is stored as the nearest of 255 evenly
spaced numbers of -1 ... 1 (int8), or of the 16 of the paper, which are quantiles of a normal distribution (nf4), by the
library bitsandbytes. The weights of one layer at a time are unpacked for its product, and again for the gradient of its
input, so that they are never kept.
"""

from __future__ import annotations

import logging
import sys
from functools import cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from afresh.core import UserError

Kind = Literal["int8", "nf4"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BLOCK = 64  # weights with one scale; as in the paper
BITS: dict[Kind, float] = {"int8": 8 + 16 / BLOCK, "nf4": 4 + 16 / BLOCK}  # of a weight, with its share of a scale
ABSENT = object()


@cache
def operators() -> Any:
    """The operators of bitsandbytes. Raises UserError if it is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Where the package `kernels` is installed, bitsandbytes would fetch compiled code from the hub at its import.
    before = sys.modules.get("kernels", ABSENT)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as e:
        raise UserError(
            f"Weights in int8 or nf4 need the package bitsandbytes, which cannot be imported ({e}). Install it: "
            "pip install 'afresh[quantized]'. Or leave `train.frozen` out.",
            "not_installed",
        ) from None
    finally:
        if before is ABSENT:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]
    return torch.ops.bitsandbytes


@cache
def even_numbers(device: torch.device) -> Tensor:
    """The 255 numbers of int8, and 0 once more."""
    levels = torch.linspace(-1, 1, 255)
    return torch.cat([levels[:128], levels[127:]]).to(device)


@torch.no_grad()
def packed(weight: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """The codes of a weight (rows, columns), uint8, and the scales of its blocks, bfloat16."""
    call, weight = operators(), weight.detach().contiguous()
    if kind == "int8":
        codes, scales = call.quantize_blockwise(weight, even_numbers(weight.device), BLOCK)
    else:
        codes, scales = call.quantize_4bit(weight, BLOCK, "nf4", torch.uint8)
        codes = codes.view(len(weight), -1)
    return codes, scales.to(torch.bfloat16)


class FrozenLinear(nn.Module):
    """x (..., columns) -> x W^T + bias (..., rows), in the precision of x or of autocast. W is `kind` and has no
    gradient. Without its numbers until a state is loaded."""

    def __init__(self, rows: int, columns: int, kind: Kind, bias: bool) -> None:
        super().__init__()
        self.shape, self.kind = torch.Size((rows, columns)), kind
        stored = (rows, columns if kind == "int8" else columns // 2)
        blocks = -(-rows * columns // BLOCK)
        with torch.device("meta"):  # parameters, so that they are no part of a checkpoint of what learns
            self.codes = nn.Parameter(torch.empty(stored, dtype=torch.uint8), requires_grad=False)
            self.scales = nn.Parameter(torch.empty(blocks, dtype=torch.bfloat16), requires_grad=False)
            self.bias = nn.Parameter(torch.empty(rows), requires_grad=False) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weights as they are computed with, (rows, columns) float32, unpacked at each access."""
        return self.unpacked(torch.float32)

    @torch.no_grad()
    def unpacked(self, dtype: torch.dtype) -> Tensor:
        call, scales = operators(), self.scales.float()
        if self.kind == "int8":
            return call.dequantize_blockwise(self.codes, scales, even_numbers(scales.device), BLOCK, dtype)
        return call.dequantize_4bit(self.codes, scales, BLOCK, "nf4", self.shape, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y = Product.apply(x, self)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Product(torch.autograd.Function):
    """x W^T, which keeps neither x nor W for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.unpacked(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.unpacked(grads[0].dtype), None
