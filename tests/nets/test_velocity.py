"""The velocity network: known scales, a condition on the grid of x, both nets at any patch, the map's second time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from afresh.core import Cond, CondSpec, Part, Space
from afresh.nets.velocity import FlowMap, Velocity, VelocityShape

SPACE = Space("field", (1, 6, 6), std=0.5)
PAIR: CondSpec = {"edges": Part("aligned", shape=(2, 6, 6)), "label": Part("label", classes=("a", "b"))}


def shape(**given: Any) -> VelocityShape:
    base = {"net": "unet", "widths": (8,), "blocks": 1, "emb": 16, "attention": True, "patch": 1, "precondition": True}
    return VelocityShape(**{**base, **given})


def lively(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net


def request(edges: torch.Tensor, there: bool = True) -> Cond:
    n = len(edges)
    parts = {"edges": edges, "label": torch.zeros(n, dtype=torch.int64)}
    return Cond(n, parts, {"edges": torch.full((n,), there), "label": torch.ones(n, dtype=torch.bool)})


@pytest.mark.parametrize(
    "given", [{}, {"patch": 2}, {"net": "dit", "patch": 2}, {"net": "dit", "widths": (64,), "patch": 4}]
)
def test_another_picture_counts_where_it_lies(given: dict[str, Any]) -> None:
    net = lively(Velocity(shape(**given), SPACE, PAIR))
    x, t = torch.randn(2, 1, 6, 6), torch.tensor([0.2, 0.7])
    edges = torch.randn(2, 2, 6, 6)
    y = net(x, t, request(edges))
    assert y.shape == x.shape
    assert not torch.allclose(net(x, t, request(-edges)), y)
    absent = net(x, t, request(edges, there=False))
    torch.testing.assert_close(net(x, t, request(-edges, there=False)), absent)
    assert not torch.allclose(absent, y)


def test_a_net_that_answers_zero_is_exact_for_a_gaussian() -> None:
    """v = E[x - e | x_t] of N(0, s^2) data: (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2) x_t."""
    net = Velocity(shape(), SPACE, {})
    x, t = torch.randn(3, 1, 6, 6), torch.tensor([0.1, 0.5, 0.9])
    a = t.view(-1, 1, 1, 1)
    exact = (a * 0.25 - (1 - a)) / ((1 - a) ** 2 + a**2 * 0.25) * x
    torch.testing.assert_close(net(x, t, Cond(3)), exact)


def test_without_preconditioning_the_net_is_the_velocity() -> None:
    net = lively(Velocity(shape(precondition=False), SPACE, {}))
    assert isinstance(net, Velocity)
    x, t = torch.randn(2, 1, 6, 6), torch.tensor([0.1, 0.5])
    torch.testing.assert_close(net(x, t, Cond(2)), net.raw(x, t, Cond(2)))


def test_the_map_knows_how_far_it_goes() -> None:
    net = lively(FlowMap(shape(), SPACE, {}))
    x, t = torch.randn(2, 1, 6, 6), torch.zeros(2)
    assert not torch.allclose(net(x, t, t + 0.5, Cond(2)), net(x, t, t + 1, Cond(2)))
