"""The velocity network: a condition on the grid of x, both networks with any patch, the second time of the map."""

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
    base = {"net": "unet", "widths": (8,), "blocks": 1, "emb": 16, "attention": True, "patch": 1}
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
def test_another_image_matters_at_its_positions(given: dict[str, Any]) -> None:
    net = lively(Velocity(shape(**given), SPACE, PAIR))
    x, t = torch.randn(2, 1, 6, 6), torch.tensor([0.2, 0.7])
    edges = torch.randn(2, 2, 6, 6)
    y = net(x, t, request(edges))
    assert y.shape == x.shape
    assert not torch.allclose(net(x, t, request(-edges)), y)
    absent = net(x, t, request(edges, there=False))
    torch.testing.assert_close(net(x, t, request(-edges, there=False)), absent)
    assert not torch.allclose(absent, y)


def test_the_map_depends_on_the_length_of_its_step() -> None:
    net = lively(FlowMap(shape(), SPACE, {}))
    x, t = torch.randn(2, 1, 6, 6), torch.zeros(2)
    assert not torch.allclose(net(x, t, t + 0.5, Cond(2)), net(x, t, t + 1, Cond(2)))
