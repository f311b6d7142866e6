"""The velocity network: a condition on the grid of x, both networks with any patch, the second time of the map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from afresh.core import Cond, CondSpec, Part, Space
from afresh.engine.nets.velocity import FlowMap, Velocity, VelocityShape, matching_times

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


SCALE = 0.1
BEFORE: CondSpec = {"past": Part("aligned", shape=(2, 6, 6), persists=True, std=SCALE)}


def test_a_network_that_knows_the_change_knows_the_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the velocity r - e of the path of changes, that of x_t = (1 - t) e + t (b + s r) is b + s r - e; where it is
    not known what was before, it is x - e."""
    net = Velocity(shape(), SPACE, BEFORE)
    b, e, r = torch.randn(3, 2, 3, 1, 6, 6, dtype=torch.float64)[:, 0]
    past = torch.cat([torch.randn_like(b), b], 1)
    t, known = torch.tensor([0.1, 0.6, 0.95], dtype=torch.float64), torch.tensor([True, True, False])
    row = known.view(-1, 1, 1, 1)
    x = torch.where(row, b + SCALE * r, r)
    a = t.view(-1, 1, 1, 1)
    seen = {}

    def plain(y: torch.Tensor, tau: torch.Tensor, cond: Cond, more: Any = None) -> torch.Tensor:
        seen["error"] = y - ((1 - tau) * 1.0).view(-1, 1, 1, 1) * e - tau.view(-1, 1, 1, 1) * r
        return r - e

    monkeypatch.setattr(net, "plain", plain)
    v = net((1 - a) * e + a * x, t, Cond(3, {"past": past}, {"past": known}))
    torch.testing.assert_close(v, x - e)
    assert float(seen["error"].abs().max()) < 1e-12


def test_times_of_changes_are_where_the_network_sees_them() -> None:
    tau, scale = torch.tensor([0.2, 0.5, 0.9]), torch.full((3,), SCALE)
    t, factor = matching_times(tau, scale)
    torch.testing.assert_close(t * scale / (1 - t + t * scale), tau)
    torch.testing.assert_close(factor, scale * (1 - tau) + tau)
