"""The fused operations against the same mathematics in float64, forwards and backwards."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.nets.kernels.build import library, tiles
from afresh.engine.nets.transformer import Decoder, DecoderShape, Linear, rotate
from afresh.engine.training.optim import AdamW, Muon
from tests import needs

pytestmark = needs.kernels

Many = tuple[Tensor, ...]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-2}  # of the norm of the difference, relative


def agree(
    mine: Callable[..., Tensor | Many], exact: Callable[..., Tensor | Many], given: Many, dtype: torch.dtype
) -> None:
    """Both functions of `given`, and their gradients under one random cotangent, agree."""
    low = tuple(z.to(dtype).requires_grad_() if z.dim() > 1 else z.clone().requires_grad_() for z in given)
    high = tuple(z.detach().double().requires_grad_() for z in low)
    a, b = mine(*low), exact(*high)
    a, b = (z if isinstance(z, tuple) else (z,) for z in (a, b))
    torch.manual_seed(9)
    cotangents = tuple(torch.randn_like(z.float()).to(z.dtype) for z in a)
    left = (*a, *torch.autograd.grad(a, low, cotangents))
    right = (*b, *torch.autograd.grad(b, high, tuple(c.double() for c in cotangents)))
    for x, y in zip(left, right, strict=True):
        assert x.shape == y.shape
        assert (x.double() - y).norm() <= TOLERANCE[dtype] * y.norm()


def test_they_are_built_where_there_is_a_compiler() -> None:
    assert library() is not None


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_norm(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, delta, w = torch.randn(5, 7, 33), torch.randn(5, 7, 33), torch.randn(33)

    def exact(x: Tensor, w: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w

    agree(lambda x, w: kernels.norm(x, w, 1e-5), exact, (x, w), dtype)
    agree(
        lambda x, d, w: kernels.add_norm(x, d, w, 1e-5), lambda x, d, w: (x + d, exact(x + d, w)), (x, delta, w), dtype
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("normed", [True, False])
def test_heads_are_split_normalised_and_rotated(dtype: torch.dtype, normed: bool) -> None:
    torch.manual_seed(0)
    b, t, heads, kv, dim = 2, 5, 4, 2, 12
    angle = torch.randn(t, dim // 2)
    cos, sin = angle.cos(), angle.sin()

    def mine(x: Tensor, qw: Tensor, kw: Tensor) -> Many:
        q, k, v = kernels.split_heads(x, (qw, kw) if normed else None, cos, sin, heads, kv, 1e-6)
        return (q, k, v) if normed else (q + 0 * qw.sum().to(q.dtype), k + 0 * kw.sum().to(k.dtype), v)

    def exact(x: Tensor, qw: Tensor, kw: Tensor) -> Many:
        q, k, v = x.view(b, t, heads + 2 * kv, dim).transpose(1, 2).split([heads, kv, kv], 1)
        if normed:
            q, k = (z * (z.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * w for z, w in ((q, qw), (k, kw)))
        c, s = (torch.cat([z, z], 1).double() for z in (cos, sin))
        return rotate(q, c, s) + 0 * qw.sum(), rotate(k, c, s) + 0 * kw.sum(), v

    agree(mine, exact, (torch.randn(b, t, (heads + 2 * kv) * dim), torch.rand(dim) + 0.5, torch.rand(dim) + 0.5), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("t", "dim"), [(7, 6), (50, 20), (64, 32), (96, 64)])  # the last two fit tiles
@pytest.mark.parametrize(("causal", "starts"), [(True, False), (True, True), (False, False)])
def test_attention(dtype: torch.dtype, t: int, dim: int, causal: bool, starts: bool) -> None:
    torch.manual_seed(0)
    b, heads, kv = 2, 4, 2
    places = torch.arange(t)
    first = torch.stack([torch.where(places < t // 3, 0, t // 3), torch.where(places < 5, 0, 5)])
    start = first.int().contiguous() if starts else None
    seen = (places[None] <= places[:, None]) if causal else torch.ones(t, t, dtype=torch.bool)
    seen = seen & ((places >= first[..., None]) if starts else torch.ones(b, t, t, dtype=torch.bool))

    def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (z.repeat_interleave(heads // kv, 1) for z in (k, v))
        scores = (q @ k.mT / math.sqrt(dim)).masked_fill(~seen[:, None], -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    given = (torch.randn(b, heads, t, dim), torch.randn(b, kv, t, dim), torch.randn(b, kv, t, dim))
    agree(lambda q, k, v: kernels.attention(q, k, v, start, causal), exact, given, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)

    def exact(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    agree(kernels.swiglu, exact, (4 * torch.randn(3, 5, 74),), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("vocab", [3, 65, 1000])
def test_cross_entropy(dtype: torch.dtype, vocab: int) -> None:
    torch.manual_seed(0)
    targets = torch.randint(-1, vocab, (40,))
    targets[:2] = -1

    def exact(x: Tensor) -> Tensor:
        return F.cross_entropy(x, targets, ignore_index=-1, reduction="none")

    agree(lambda x: kernels.cross_entropy(x, targets), exact, (5 * torch.randn(40, vocab),), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_entropy_by_a_frozen_head_is_that_of_its_logits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "HEAD_ROWS", 16)
    torch.manual_seed(0)
    targets = torch.randint(-1, 65, (40,))
    targets[:2] = -1
    weight = (torch.randn(65, 24) / 5).bfloat16().float()

    def exact(h: Tensor) -> Tensor:
        return F.cross_entropy(h @ weight.to(h.dtype).mT, targets, ignore_index=-1, reduction="none")

    agree(lambda h: kernels.frozen_head_entropy(h, weight, targets), exact, (torch.randn(40, 24),), dtype)


def test_numbers_that_are_not_finite_stay_visible() -> None:
    """Training checks the norm of the gradient: no operation may replace a NaN by a number."""
    for bad in (torch.nan, torch.inf):
        x = torch.randn(2, 32, 3 * 64).bfloat16()
        x[1, 20, :] = bad
        q, k, v = kernels.split_heads(x, None, torch.ones(32, 16), torch.zeros(32, 16), 2, 2, 1e-6)
        y = kernels.attention(q, k, v)
        assert not y[1, 20].isfinite().any()
        assert y[0].isfinite().all()
        assert not kernels.norm(x, torch.ones(192), 1e-6)[1, 20].isfinite().all()
        assert not kernels.swiglu(x)[1, 20].isfinite().any()
        logits = torch.randn(4, 9)
        logits[2, 3] = bad
        nats = kernels.cross_entropy(logits, torch.tensor([0, 1, 2, 3]))
        assert nats.isfinite().tolist() == [True, True, False, True]


@pytest.mark.parametrize("shape", [(64, 96, 32), (1056, 64, 1056), (40, 33, 20)])  # (N, O, I); the last fits no tiles
def test_a_linear_map_and_its_gradient_in_float32(shape: tuple[int, int, int]) -> None:
    n, o, i = shape
    torch.manual_seed(0)
    x, layer = torch.randn(n, i).bfloat16().requires_grad_(), Linear(i, o, bias=False)
    dy = torch.randn(n, o).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.backward(dy)
    narrow = layer.weight.detach().bfloat16().double()
    exact = dy.double().T @ x.detach().double()
    assert x.grad is not None and layer.weight.grad is not None
    assert (y.double() - x.double() @ narrow.T).norm() <= 4e-3 * y.double().norm()
    assert (x.grad.double() - dy.double() @ narrow).norm() <= 4e-3 * x.grad.double().norm()
    exactness = 1e-6 if tiles() and o % 32 == 0 and i % 32 == 0 and n % 32 == 0 else 4e-3
    assert (layer.weight.grad.double() - exact).norm() <= exactness * exact.norm()


def test_gradients_added_in_place_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    net = Decoder(DecoderShape(vocab=40, width=64, layers=2, heads=2, kv_heads=1, mlp=96, context=32), {})
    torch.nn.init.normal_(net.head.weight, std=0.1)  # type: ignore[union-attr]
    for block in net.blocks:
        torch.nn.init.normal_(block.attention.out.weight, std=0.1)
        torch.nn.init.normal_(block.mlp.down.weight, std=0.1)
    x = torch.randint(40, (4, 33))

    def gradients(parts: int) -> dict[str, Tensor]:
        net.zero_grad()
        for part in x.chunk(parts):
            with torch.autocast("cpu", torch.bfloat16):
                loss = net(part[:, :-1], None, part[:, 1:]).sum()
            with kernels.added_in_place():
                loss.backward()
        return {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}

    whole, split = gradients(1), gradients(4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x[:, :-1], None, x[:, 1:]).sum()
    asked = torch.autograd.grad(loss, list(net.parameters()))  # outside: nothing is left in .grad
    for (k, p), g in zip(net.named_parameters(), asked, strict=True):
        assert (split[k] - whole[k]).norm() <= 1e-2 * whole[k].norm(), k
        assert torch.equal(whole[k], g), k
        assert torch.equal(p.grad, split[k])  # type: ignore[arg-type]


def test_a_converted_weight_follows_every_kind_of_change() -> None:
    layer = Linear(32, 32, bias=False)
    x = torch.randn(32, 32).bfloat16()

    def fresh() -> bool:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.equal(layer(x), F.linear(x, layer.weight.bfloat16()))

    def changes(what: Callable[[], object]) -> None:
        assert fresh()
        before = layer.weight.detach().clone()
        what()
        assert not torch.equal(before, layer.weight) and fresh()

    layer.weight.grad = torch.randn(32, 32)
    changes(lambda: Muon({"w": layer.weight}, 0.1).step(0.1))
    changes(lambda: AdamW({"w": layer.weight}, 0.1, (0.9, 0.99)).step(0.1))
    changes(lambda: layer.load_state_dict({"weight": torch.randn(32, 32)}))
    changes(lambda: layer.load_state_dict({"weight": torch.randn(32, 32)}, assign=True))
    changes(lambda: torch.nn.init.normal_(layer.weight))


def test_without_kernels_the_loss_is_the_same() -> None:
    program = (
        "import torch; from afresh.engine.nets.transformer import Decoder, DecoderShape; torch.manual_seed(0);"
        "net = Decoder(DecoderShape(vocab=9, width=32, layers=2, heads=2, kv_heads=2, mlp=64, context=16), {});"
        "[torch.nn.init.normal_(p, std=0.2) for p in net.parameters() if p.dim() > 1];"
        "x = torch.randint(9, (3, 17)); loss = net(x[:, :-1], None, x[:, 1:]).sum(); loss.backward();"
        "print(loss.item(), sum(p.grad.square().sum() for p in net.parameters()).item())"
    )
    found = []
    for switch in ("1", "0"):
        env = {**os.environ, "AFRESH_KERNELS": switch}
        out = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        ).stdout
        found.append([float(v) for v in out.split()])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
