"""The fused steps between the convolutions of a network over a field, as a differentiable function, for a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from afresh.nets.kernels.functions import call, usable


def fits(x: Tensor, film: Tensor | None) -> bool:
    """Whether the kernel can take x (B, C, *grid): `usable`, its channels last in memory, film of its type."""
    return usable(x) and x.movedim(1, -1).is_contiguous() and (film is None or film.dtype == x.dtype)


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, film: Tensor | None, eps: float) -> Tensor:
        rows = x.movedim(1, -1)
        b, c = x.shape[:2]
        film = None if film is None else film.contiguous()
        y, mean, inverse = torch.empty_like(rows), torch.empty(x.numel() // c), torch.empty(x.numel() // c)
        call("activate", x.dtype, rows, weight, bias, film, y, mean, inverse, b, len(mean) // b, c, eps)
        ctx.save_for_backward(x, weight, bias, film, mean, inverse)
        return y.movedim(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        x, weight, bias, film, mean, inverse = ctx.saved_tensors
        rows, dy = x.movedim(1, -1), grads[0].movedim(1, -1).contiguous()
        b, c = x.shape[:2]
        dx, dfilm = torch.empty_like(rows), None if film is None else torch.empty_like(film)
        sums = torch.zeros(torch.get_num_threads(), 2, c)
        given = (dy, rows, weight, bias, film, mean, inverse, dx, dfilm, sums)
        call("activate_back", x.dtype, *given, b, len(mean) // b, c)
        dw, db = sums.sum(0)
        return dx.movedim(-1, 1), dw, db, dfilm, None


def activated(x: Tensor, weight: Tensor, bias: Tensor, film: Tensor | None, eps: float = 1e-5) -> Tensor:
    """silu(norm(x) (1 + s) + t) of x (B, C, *grid) that `fits`, norm over the channels of each place with weight and
    bias (C,) float32, s and t the halves of film (B, 2 C); None: neither."""
    return _Activated.apply(x, weight, bias, film, eps)
