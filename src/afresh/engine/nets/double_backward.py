"""Layers whose gradients are differentiated again, as gradient penalties require.

torch differentiates the gradient of a convolution by convolving an image with another one as its kernel. oneDNN has no
fast kernel for that: it took a third of a GAN's step on a CPU (docs/development/log.md). Here the derivatives of all
orders are again the three maps of a convolution, as in `conv2d_gradfix` of StyleGAN2-ADA (Karras et al. 2020): the
forward map, its transpose, and the gradient of the kernel, for which there are fast kernels on every processor.

The second derivative of a leaky ReLU is zero, for which torch fills a tensor with zeros and adds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Geometry = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]  # stride, padding, dilation, groups

_INPUTS_ONLY = ContextVar("inputs_only", default=False)


@contextmanager
def inputs_only() -> Iterator[None]:
    """Within the block, no gradients of kernels and biases are computed, which the gradient of an input does not
    need. A function of torch cannot know which of its gradients `torch.autograd.grad` asks for."""
    token = _INPUTS_ONLY.set(True)
    try:
        yield
    finally:
        _INPUTS_ONLY.reset(token)


def twice(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` for x (B, C, *grid) and a convolution with zero padding; its gradients have fast gradients."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if not torch.is_grad_enabled():
        return layer(x)
    w, b = layer.weight, layer.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, w, b = x.to(dtype), w.to(dtype), None if b is None else b.to(dtype)
    assert not isinstance(layer.padding, str)
    return _apply(x, w, b, (layer.stride, layer.padding, layer.dilation, layer.groups))


def leaky(x: Tensor, slope: float) -> Tensor:
    """`F.leaky_relu(x, slope)` for a positive slope; its gradient has a gradient without zeros to add."""
    if not torch.is_grad_enabled():
        return F.leaky_relu(x, slope)
    out: Tensor = LeakyReLU.apply(x, slope)
    return out


def _apply(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    out: Tensor = Convolution.apply(x, w, b, geometry)
    return out


def _gradients(
    g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The `wanted` ones of the gradients of x, w and the bias, for the gradient g of the output."""
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward(
        g, x, w, [len(w)], stride, padding, dilation, False, [0] * len(stride), groups, wanted
    )


class Convolution(torch.autograd.Function):
    """x (B, C, *grid), kernel w (out, C / groups, *size), bias (out,) or None, Geometry -> (B, out, *grid)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        stride, padding, dilation, groups = geometry
        return torch.ops.aten.convolution(x, w, b, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        of_x, of_w, of_b, _ = ctx.needs_input_grad
        of_w, of_b = (wanted and not _INPUTS_ONLY.get() for wanted in (of_w, of_b))
        if not torch.is_grad_enabled():
            return (*_gradients(g, x, w, ctx.geometry, (of_x, of_w, of_b)), None)
        gx = Transposed.apply(g, w, x.detach(), ctx.geometry) if of_x else None
        if not (of_w or of_b):
            return gx, None, None, None
        return (gx, *_gradients(g, x, w, ctx.geometry, (False, of_w, of_b))[1:], None)


class Transposed(torch.autograd.Function):
    """The gradient of a convolution's input, like x, from that of its output g (B, out, *grid). x gives the shape."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.geometry = geometry
        gx = _gradients(g, x, w, geometry, (True, False, False))[0]
        assert gx is not None
        return gx

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, w = ctx.saved_tensors
        of_g, of_w, _, _ = ctx.needs_input_grad
        out = _apply(v, w, None, ctx.geometry) if of_g else None
        return out, _gradients(g, v, w, ctx.geometry, (False, of_w, False))[1] if of_w else None, None, None


class LeakyReLU(torch.autograd.Function):
    """x and the slope below 0 -> like x. The result is kept for the gradient, as the next layer keeps it as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        y = F.leaky_relu(x, slope)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return Sloped.apply(g, ctx.saved_tensors[0].detach(), ctx.slope), None


class Sloped(torch.autograd.Function):
    """g where the result y of a leaky ReLU is positive, and slope * g elsewhere: linear in g, constant in y."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, y: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(y)
        ctx.slope = slope
        return torch.ops.aten.leaky_relu_backward(g, y, slope, True)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:
        return Sloped.apply(v, ctx.saved_tensors[0], ctx.slope), None, None
