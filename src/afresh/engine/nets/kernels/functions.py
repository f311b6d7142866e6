"""The fused operations of a decoder as differentiable functions of tensors, for a CPU.

`usable` tells when they may be called; otherwise nets/transformer.py computes the same with PyTorch's operations.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from afresh.engine.nets.kernels.build import library, tiles

SUFFIX = {torch.float32: "f", torch.bfloat16: "b"}


def usable(x: Tensor) -> bool:
    """Whether the kernels can be used for x: on a CPU, in float32 or bfloat16, and not under torch.compile."""
    return x.device.type == "cpu" and x.dtype in SUFFIX and not torch.compiler.is_compiling() and library() is not None


def call(name: str, dtype: torch.dtype, *args: Tensor | int | float | None) -> None:
    """Runs a kernel for a dtype."""
    call_as(f"{name}_{SUFFIX[dtype]}", *args)


def call_as(name: str, *values: Tensor | int | float | None) -> None:
    """Runs a kernel with contiguous tensors (None for a null pointer), integers and floats."""
    lib = library()
    assert lib is not None
    args: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            assert value.is_contiguous()
            args.append(ctypes.c_void_p(value.data_ptr()))
        elif isinstance(value, int):
            args.append(ctypes.c_long(value))
        else:
            args.append(None if value is None else ctypes.c_float(value))
    lib[name](*args)


def _normed(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x + delta, its RMSNorm, 1 / rms (N,))."""
    n, d = x.numel() // x.shape[-1], x.shape[-1]
    h = x if delta is None else torch.empty_like(x)
    y, scale = torch.empty_like(x), torch.empty(n)
    call("norm", x.dtype, x, delta, weight, h, y, scale, n, d, eps)
    return h, y, scale


def _normed_back(saved: tuple[Tensor, Tensor, Tensor], dh: Tensor | None, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight: with n = h / rms(h), dw = sum dy n, dx = dh + (dy w - n mean(dy w n)) / rms(h)."""
    h, weight, scale = saved
    n, d = len(scale), h.shape[-1]
    dx, dw = torch.empty_like(h), torch.zeros(torch.get_num_threads(), d)
    call("norm_back", h.dtype, dy.contiguous(), dh, h, weight, scale, dx, dw, n, d)
    return dx, dw.sum(0)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        _, y, scale = _normed(x, None, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        return *_normed_back(ctx.saved_tensors, None, grads[0]), None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        h, y, scale = _normed(x.contiguous(), delta.contiguous(), weight, eps)
        ctx.save_for_backward(h, weight, scale)
        return h, y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        dx, dw = _normed_back(ctx.saved_tensors, grads[0].contiguous(), grads[1])
        return dx, dx, dw, None


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension (Zhang and Sennrich 2019, eq. 4)."""
    return _Norm.apply(x, weight, eps)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + delta, its normalisation)."""
    return _AddNorm.apply(x, delta, weight, eps)


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_weight: Tensor | None, k_weight: Tensor | None, cos: Tensor, sin: Tensor, shape: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv, dim, eps = shape
        b, t, _ = qkv.shape
        qkv = qkv.contiguous()
        q = qkv.new_empty(b, heads, t, dim)
        k, v = qkv.new_empty(b, kv, t, dim), qkv.new_empty(b, kv, t, dim)
        scale = torch.empty(b * t * (heads + kv))
        call("split", qkv.dtype, qkv, q_weight, k_weight, cos, sin, q, k, v, scale, b, t, heads, kv, dim, eps)
        ctx.save_for_backward(qkv, q_weight, k_weight, cos, sin, scale)
        ctx.shape = shape
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None, None, None]:
        qkv, q_weight, k_weight, cos, sin, scale = ctx.saved_tensors
        heads, kv, dim, _ = ctx.shape
        b, t, _ = qkv.shape
        out, dw = torch.empty_like(qkv), torch.zeros(torch.get_num_threads(), 2, dim)
        dq, dk, dv = (g.contiguous() for g in grads)
        back = (out, dw, b, t, heads, kv, dim)
        call("split_back", qkv.dtype, dq, dk, dv, qkv, q_weight, k_weight, cos, sin, scale, *back)
        if q_weight is None:
            return out, None, None, None, None, None
        q_grad, k_grad = dw.sum(0)
        return out, q_grad, k_grad, None, None, None


def split_heads(
    qkv: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """qkv (B, T, (H + 2 K) D) -> q (B, H, T, D), k and v (B, K, T, D).

    q and k are normalised with their weights (D,) (None: not normalised) and rotated by cos and sin (T, D / 2),
    float32.
    """
    dim = qkv.shape[-1] // (heads + 2 * kv_heads)
    q_weight, k_weight = norms or (None, None)
    return _SplitHeads.apply(qkv, q_weight, k_weight, cos, sin, (heads, kv_heads, dim, eps))


LONGEST = 1024  # longest sequence whose probabilities are stored for the gradient


def tiled(q: Tensor) -> bool:
    """Whether attention with queries q (B, H, T, D) runs on AMX tiles."""
    t, d = q.shape[2:]
    return q.dtype is torch.bfloat16 and t % 32 == 0 and d % 32 == 0 and t <= LONGEST and tiles()


class _TiledAttention(torch.autograd.Function):
    """Softmax attention on AMX tiles, one head at a time; the gradient is that of _Attention."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, start: Tensor | None, causal: bool) -> Tensor:
        b, h, t, d = q.shape
        ctx.sizes = (b, h, k.shape[1], t, d, int(causal), 1 / math.sqrt(d))
        out, p = q.new_empty(b, t, h * d), q.new_empty(b, h, t, t)
        call_as("attention", q, k, v, start, out, p, *ctx.sizes)
        ctx.save_for_backward(q, k, v, p)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, p = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        call_as("attention_back", grads[0].contiguous(), q, k, v, p, dq, dk, dv, *ctx.sizes)
        return dq, dk, dv, None, None


class _Attention(torch.autograd.Function):
    """Softmax attention by batched products. dS = P (dP - sum_j P dP) / sqrt(D) (Dao et al. 2022, eq. 4)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, start: Tensor | None, causal: bool) -> Tensor:
        b, h, t, d = q.shape
        kv = k.shape[1]
        ctx.shape, ctx.causal, ctx.factor = (b, h, t, d, kv), int(causal), 1 / math.sqrt(d)
        q, k, v = q.reshape(b * kv, h // kv * t, d), k.reshape(b * kv, t, d), v.reshape(b * kv, t, d)
        p = torch.bmm(q, k.mT)
        call("softmax", p.dtype, p, start, b * h, h, t, t, ctx.causal, ctx.factor)
        ctx.save_for_backward(q, k, v, p, start)
        return torch.bmm(p, v).view(b, h, t, d).transpose(1, 2).reshape(b, t, h * d)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, p, start = ctx.saved_tensors
        b, h, t, d, kv = ctx.shape
        g = grads[0].view(b, t, h, d).transpose(1, 2).reshape(q.shape)
        ds = torch.bmm(g, v.mT)
        call("softmax_back", p.dtype, ds, p, start, b * h, h, t, t, ctx.causal, ctx.factor)
        dq, dk, dv = torch.bmm(ds, k), torch.bmm(ds.mT, q), torch.bmm(p.mT, g)
        return dq.view(b, h, t, d), dk.view(b, kv, t, d), dv.view(b, kv, t, d), None, None


def attention(q: Tensor, k: Tensor, v: Tensor, start: Tensor | None = None, causal: bool = True) -> Tensor:
    """q (B, H, T, D), k and v (B, K, T, D), with K a divisor of H -> (B, T, H D).

    Position i attends to positions start[b, i] ... i, where `start` is (B, T) int32; None: from the beginning. If not
    causal: to the end of the window.
    """
    return (_TiledAttention if tiled(q) else _Attention).apply(q, k, v, start, causal)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        call("swiglu", x.dtype, x, y, y.numel() // y.shape[-1], y.shape[-1])
        ctx.save_for_backward(x)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        dy, dx = grads[0].contiguous(), torch.empty_like(x)
        call("swiglu_back", x.dtype, dy, x, dx, dy.numel() // dy.shape[-1], dy.shape[-1])
        return dx


def swiglu(x: Tensor) -> Tensor:
    """(..., 2 M) gate and up -> (..., M): silu(gate) * up (Shazeer 2020)."""
    return _SwiGLU.apply(x)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logits, targets = logits.contiguous(), targets.contiguous()
        n, v = logits.shape
        nats, lse = torch.empty(n), torch.empty(n)
        call("entropy", logits.dtype, logits, targets, nats, lse, n, v)
        ctx.save_for_backward(logits, targets, lse)
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        logits, targets, lse = ctx.saved_tensors
        n, v = logits.shape
        d = torch.empty_like(logits)
        call("entropy_back", logits.dtype, grads[0].contiguous(), logits, targets, lse, d, n, v)
        return d, None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """logits (N, V), targets (N,) int64, -1 to ignore a row -> nats (N,) float32, 0 for ignored rows."""
    return _CrossEntropy.apply(logits, targets)


HEAD_ROWS = 256  # of logits that there are at once: fewer would read the weight of the head more often


class _FrozenHead(torch.autograd.Function):
    """The gradient of h is computed beside the nats, so that the logits, most of what a step of a small network with a
    large vocabulary would keep, are never there as a whole (as in Hsu et al. 2024, Liger Kernel, sec. 3.2)."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        n, rows = len(h), max(1, min(len(h), HEAD_ROWS))
        h, weight, targets = h.contiguous(), weight.to(h.dtype), targets.contiguous()
        dh = torch.empty_like(h) if ctx.needs_input_grad[0] else None
        logits, d = (h.new_empty(rows, len(weight)) for _ in range(2))
        nats, lse, ones = torch.empty(n), torch.empty(rows), torch.ones(rows)
        for first in range(0, n, rows):
            at = slice(first, min(first + rows, n))
            count = at.stop - first
            torch.mm(h[at], weight.mT, out=logits[:count])
            call("entropy", h.dtype, logits, targets[at], nats[at], lse, count, len(weight))
            if dh is not None:
                call("entropy_back", h.dtype, ones, logits, targets[at], lse, d, count, len(weight))
                torch.mm(d[:count], weight, out=dh[at])
        ctx.save_for_backward(dh)
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (dh,) = ctx.saved_tensors
        return (dh * grads[0][:, None]).to(dh.dtype), None, None


def frozen_head_entropy(h: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` of the logits h W^T, h (N, W), by a weight (V, W) that does not learn."""
    return _FrozenHead.apply(h, weight, targets)


# --------------------------------------------------------------------------- linear maps

_adding = False


@contextmanager
def added_in_place() -> Iterator[None]:
    """Within this context, gradients of linear maps are added to an existing `weight.grad` in place.

    This takes one pass over memory instead of three. Only for backward passes that fill `.grad`, not for
    torch.autograd.grad.
    """
    global _adding
    was, _adding = _adding, True
    try:
        yield
    finally:
        _adding = was


def weight_gradient(dy: Tensor, x: Tensor, into: Tensor | None) -> Tensor:
    """dy (N, O)^T x (N, I) in float32, added to `into` if it is not None."""
    (n, o), i = dy.shape, x.shape[1]
    out = torch.empty(o, i) if into is None else into
    room = torch.empty(n * i // 2, dtype=torch.int32)
    call_as("weight_gradient", dy, x, out, room, n, o, i, int(into is not None))
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, narrow: Tensor) -> Tensor:
        ctx.save_for_backward(x, narrow)
        ctx.weight = weight
        return torch.nn.functional.linear(x, narrow)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        dy, weight = grads[0].contiguous(), ctx.weight
        dx = dy @ w if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None, None
        dy, x = dy.flatten(0, -2), x.contiguous().flatten(0, -2)
        if not (tiles() and len(x) % 32 == 0 and weight.shape[0] % 32 == 0 and weight.shape[1] % 32 == 0):
            return dx, (dy.mT @ x).float(), None
        if _adding and weight.grad is not None and weight.grad.is_contiguous():
            weight_gradient(dy, x, weight.grad)
            return dx, None, None
        return dx, weight_gradient(dy, x, None), None


def linear(x: Tensor, weight: Tensor, narrow: Tensor) -> Tensor:
    """x (..., I) bfloat16, weight (O, I) float32, and the same weight in bfloat16 -> (..., O) bfloat16.

    The gradient of the weight is float32.
    """
    return _Linear.apply(x, weight, narrow)
