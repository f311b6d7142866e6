"""Convolutions with fast second derivatives have the values and the derivatives of torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.engine.nets.conv import Conv, conv
from afresh.engine.nets.double_backward import inputs_only, leaky, twice


def layer_and_input(dims: int, groups: int = 1, bias: bool = True) -> tuple[Conv, Tensor]:
    torch.manual_seed(0)
    layer = conv(dims, 2, 4, 3, groups, bias).double()
    return layer, torch.randn(2, 2, *(5, 4, 3)[:dims], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("dims", "groups", "bias"), [(1, 1, True), (2, 1, True), (2, 2, False), (3, 1, False)])
def test_derivatives_up_to_the_second_are_exact(dims: int, groups: int, bias: bool) -> None:
    layer, x = layer_and_input(dims, groups, bias)
    parameters = tuple(layer.parameters())

    def f(x: Tensor, *_: Tensor) -> Tensor:
        return twice(layer, x)

    assert torch.equal(f(x), layer(x))
    assert torch.autograd.gradcheck(f, (x, *parameters))
    assert torch.autograd.gradgradcheck(f, (x, *parameters))


def penalised(layer: Conv, x: Tensor, own: bool) -> list[Tensor]:
    """The gradients of a penalised layer: those of x, the kernel and the bias."""
    y = twice(layer, x) if own else layer(x)
    with inputs_only():
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum() + y.sum(), [x, *layer.parameters()]))


def test_a_gradient_penalty_is_that_of_torch() -> None:
    layer, x = layer_and_input(2)
    for own, theirs in zip(penalised(layer, x, True), penalised(layer, x, False), strict=True):
        assert torch.allclose(own, theirs, rtol=1e-12)


def test_gradients_of_kernels_can_be_left_out() -> None:
    layer, x = layer_and_input(2)
    with inputs_only():
        twice(layer, x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in layer.parameters())
    twice(layer, x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_autocast_and_frozen_kernels() -> None:
    layer, x = nn.Conv2d(2, 4, 3, padding=1).requires_grad_(False), torch.randn(1, 2, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = twice(layer, x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert not twice(layer, x.detach()).requires_grad


def test_a_leaky_relu_is_that_of_torch_to_the_second_derivative() -> None:
    x = torch.tensor([-2.0, -0.3, 0.0, 0.7, 3.0], dtype=torch.float64, requires_grad=True)

    def derivatives(own: bool) -> list[Tensor]:
        y = (leaky(x * x * x, 0.2) if own else F.leaky_relu(x * x * x, 0.2)) ** 2
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return [y, first, *torch.autograd.grad(first.square().sum(), x)]

    for own, theirs in zip(derivatives(True), derivatives(False), strict=True):
        assert torch.equal(own, theirs)
