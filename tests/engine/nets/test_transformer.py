"""The decoder's mathematics: causality, cache, rotary positions, grouped queries, conditions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from afresh.core import Cond, Part
from afresh.engine.nets import decoding, transformer
from afresh.engine.nets.decoding import decode
from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.nets.transformer import AttentionContext, Decoder, DecoderShape, RMSNorm, SwiGLU, rope_table, rotate

SHAPE = DecoderShape(vocab=11, width=16, layers=2, heads=4, kv_heads=2, mlp=24, context=12)
SPEC = {"label": Part("label", classes=("a", "b", "c"))}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [10, 0, 7, 7, 7, 2, 8, 1, 8, 2]])


def made(shape: DecoderShape = SHAPE, spec: dict[str, Part] | None = None, seed: int = 0) -> Decoder:
    """A decoder without zero weights; new ones return uniform distributions for any input."""
    torch.manual_seed(seed)
    net = Decoder(shape, spec or {})
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.3)
    return net.eval().requires_grad_(False)


def logits(net: Decoder, tokens: Tensor, c: Tensor | None = None) -> Tensor:
    out = net(tokens, c)
    assert isinstance(out, Tensor)
    return out


def test_a_fresh_model_is_uniform_and_its_loss_is_log_v() -> None:
    net = Decoder(SHAPE, {})
    nats = net(TOKENS[:, :-1], None, TOKENS[:, 1:])
    torch.testing.assert_close(nats, torch.full((2,), 9 * math.log(11)), rtol=1e-6, atol=0)


def test_targets_of_minus_one_are_ignored() -> None:
    net, targets = made(), TOKENS[:, 1:].clone()
    log_p = logits(net, TOKENS[:, :-1]).log_softmax(-1).gather(2, targets[..., None])[..., 0]  # (B, T)
    targets[0, 4:] = -1
    targets[1, 0] = -1
    expected = -torch.stack([log_p[0, :4].sum(), log_p[1, 1:].sum()])
    torch.testing.assert_close(net(TOKENS[:, :-1], None, targets), expected)


@pytest.mark.parametrize("positions", [0, 13])
def test_the_future_does_not_change_the_past(positions: int) -> None:
    net = made(replace(SHAPE, positions=positions))
    before = logits(net, TOKENS)
    for t in range(1, TOKENS.shape[1]):
        changed = TOKENS.clone()
        changed[:, t:] = (changed[:, t:] + 1) % 11
        after = logits(net, changed)
        torch.testing.assert_close(after[:, :t], before[:, :t], rtol=0, atol=1e-5)
        assert not torch.allclose(after[:, t:], before[:, t:], atol=1e-3)


@pytest.mark.parametrize("positions", [0, 13])
@settings(max_examples=25, deadline=None)
@given(chunks=st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_the_cache_equals_the_full_forward_pass_however_it_is_fed(positions: int, chunks: list[int]) -> None:
    net = made(replace(SHAPE, positions=positions), SPEC)
    c = net.condition(Cond(2, {"label": torch.tensor([0, 2])}, {"label": torch.tensor([True, False])}))
    whole = net.hidden(TOKENS, c)
    cache, parts, at = net.new_cache(2, 12, torch.float32), [], 0
    for size in [*chunks, 10]:
        piece = TOKENS[:, at : at + size]
        if piece.shape[1]:
            parts.append(net.hidden(piece, c, cache))
        at += size
    assert cache.lengths.tolist() == [10, 10]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_the_room_of_a_cache_grows_with_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "FIRST_ROOM", 3)
    net = made()
    whole, cache = net.hidden(TOKENS, None), net.new_cache(2, 12, torch.float32)
    rooms, parts = [], []
    for piece in TOKENS.split([2, 2, 5, 1], 1):
        parts.append(net.hidden(piece, None, cache))
        rooms.append(cache.k.shape[3])
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    assert rooms == [3, 6, 12, 12] and cache.capacity == 12


def test_rows_leave_a_cache() -> None:
    net = made()
    cache = net.new_cache(2, 12, torch.float32)
    net.hidden(TOKENS[:, :6], None, cache)
    left = net.hidden(TOKENS[1:, 6:], None, cache.select(torch.tensor([1])))
    torch.testing.assert_close(left, net.hidden(TOKENS[1:], None)[:, 6:], rtol=0, atol=1e-5)


def test_grouped_queries_are_full_heads_with_repeated_keys_and_values() -> None:
    grouped = made()
    full = made(replace(SHAPE, kv_heads=4))
    weights = grouped.state_dict()
    dim, repeats = 4, SHAPE.heads // SHAPE.kv_heads
    for i in range(SHAPE.layers):
        name = f"blocks.{i}.attention.qkv.weight"
        q, k, v = weights[name].split([16, 8, 8])
        k, v = (z.view(2, dim, 16).repeat_interleave(repeats, 0).reshape(16, 16) for z in (k, v))
        weights[name] = torch.cat([q, k, v])
    full.load_state_dict(weights)
    torch.testing.assert_close(logits(full, TOKENS), logits(grouped, TOKENS), rtol=0, atol=1e-5)


def test_a_rotation_keeps_lengths_and_products_depend_on_the_distance_alone() -> None:
    cos, sin = rope_table(64, 8, 10_000.0)
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def at(x: Tensor, place: int) -> Tensor:
        return rotate(x, cos[place : place + 1].double(), sin[place : place + 1].double()).flatten()

    torch.testing.assert_close(at(q, 0), q.flatten())
    torch.testing.assert_close(at(q, 37).norm(), q.norm(), rtol=1e-6, atol=0)
    products = torch.stack([at(q, p + 5) @ at(k, p) for p in range(59)])
    torch.testing.assert_close(products, products[:1].expand(59), rtol=0, atol=1e-5)
    assert not torch.isclose(at(q, 5) @ at(k, 0), at(q, 6) @ at(k, 0))


def test_rotary_attention_does_not_depend_on_absolute_positions() -> None:
    """With one layer, shifted tables give the same output for the same window."""
    net = made(replace(SHAPE, layers=1))
    h = net.embedding(TOKENS[:, :6])
    cos, sin = net.get_buffer("cos"), net.get_buffer("sin")
    here = sum(net.blocks[0](h, None, AttentionContext(cos[0:6], sin[0:6]), 0))
    there = sum(net.blocks[0](h, None, AttentionContext(cos[6:12], sin[6:12]), 0))
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(2, 0.0)
    norm.weight.data = torch.tensor([1.0, 10.0])
    x = torch.tensor([[3.0, 4.0]])  # rms = sqrt(12.5)
    torch.testing.assert_close(norm(x), torch.tensor([[3.0, 40.0]]) / math.sqrt(12.5))
    torch.testing.assert_close(norm(100 * x), norm(x))


def test_swiglu_by_hand() -> None:
    net = SwiGLU(1, 1)
    net.gate_up.weight.data = torch.tensor([[2.0], [3.0]])
    net.down.weight.data = torch.tensor([[0.5]])
    silu = 2.0 / (1 + math.exp(-2.0))
    torch.testing.assert_close(net(torch.ones(1, 1)), torch.tensor([[0.5 * silu * 3.0]]))


def test_a_label_matters_only_where_it_is_present() -> None:
    net = made(spec=SPEC)

    def under(label: int, present: bool) -> Tensor:
        cond = Cond(2, {"label": torch.full((2,), label)}, {"label": torch.full((2,), present)})
        return logits(net, TOKENS, net.condition(cond))

    torch.testing.assert_close(under(0, False), under(2, False), rtol=0, atol=0)
    assert not torch.allclose(under(0, True), under(2, True), atol=1e-3)
    assert not torch.allclose(under(0, True), under(0, False), atol=1e-3)


def test_learned_positions_follow_the_cache() -> None:
    net = made(replace(SHAPE, positions=13))
    assert net.position is not None
    moved = logits(net, TOKENS)
    net.position.weight[5] += 1.0
    changed = (logits(net, TOKENS) - moved).abs().amax((0, 2)) > 1e-4
    assert changed.tolist() == [False] * 5 + [True] * 5


def test_the_gradient_of_the_norm_in_float32_is_that_in_float64() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(12, 1e-6)
    nn.init.normal_(norm.weight)
    x, g = torch.randn(3, 5, 12) * 4, torch.randn(3, 5, 12)
    grads = []
    for dtype in (torch.float32, torch.float64):  # float64 takes the plain way
        y = x.detach().clone().to(dtype).requires_grad_()
        norm.to(dtype).zero_grad()
        norm(y).backward(g.to(dtype))
        assert y.grad is not None and norm.weight.grad is not None
        grads.append((y.grad.double(), norm.weight.grad.double().clone()))
    for ours, exact in zip(*grads, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [True, False])
def test_documents_of_a_window_are_independent(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing with the separator 0: the logits of every document are those without the others, for every attention."""
    if not kernel:
        monkeypatch.setattr(kernels, "usable", lambda x: False)
    net = made(replace(SHAPE, context=64, separator=0))
    documents = [torch.randint(1, 11, (n,)) for n in (5, 1, 9, 12)]
    packed = torch.cat([z for d in documents for z in (torch.zeros(1, dtype=torch.int64), d)])[None]
    together, at = logits(net, packed), 0
    changed = packed.clone()
    changed[0, 1:6] = changed[0, 1:6] % 10 + 1  # another first document
    torch.testing.assert_close(logits(net, changed)[:, 6:], together[:, 6:], rtol=0, atol=1e-6)
    for d in documents:
        alone = logits(net, torch.cat([torch.zeros(1, dtype=torch.int64), d])[None])
        torch.testing.assert_close(together[:, at : at + len(d) + 1], alone, rtol=0, atol=1e-5)
        at += len(d) + 1
    contaminated = logits(made(replace(SHAPE, context=64)), packed)  # the test can fail
    assert not torch.allclose(contaminated[:, 6:], together[:, 6:], atol=1e-2)
    nats = net(packed[:, :-1], None, packed[:, 1:])
    expected = -together[:, :-1].log_softmax(-1).gather(2, packed[:, 1:, None]).sum()
    torch.testing.assert_close(nats.sum(), expected)


@pytest.mark.parametrize("engine", [True, False])
def test_a_separator_in_the_input_begins_a_document(engine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not engine:
        monkeypatch.setattr(decoding, "engine_of", lambda net, kind: None)
    net = made(replace(SHAPE, context=64, separator=0))
    x = torch.randint(1, 11, (2, 30))
    x[0, [4, 17]], x[1, 20] = 0, 0
    exact, state = logits(net, x).log_softmax(-1), None
    for a, b in ((0, 7), (7, 8), (8, 21), (21, 30)):
        out, state = decode(net, x[:, a:b], None, None, state, 64, "float32")
        torch.testing.assert_close(out.log_softmax(-1), exact[:, b - 1], rtol=0, atol=2e-5)


def test_a_cache_whose_rows_leave_and_restart_still_equals_the_full_pass() -> None:
    """How far keys are read is known without asking the device for the lengths; it may be too far, never too short."""
    net, cache = made(), made().new_cache(2, 12, torch.float32)
    net.hidden(TOKENS[:, :6], None, cache, torch.tensor([6, 3]))
    for at in range(2):
        tokens = torch.stack([TOKENS[0, 6 + at], TOKENS[1, 3 + at]])[:, None]
        h = net.hidden(tokens, None, cache)
    assert cache.lengths.tolist() == [8, 5] and cache.end == 8
    for row, length in ((0, 8), (1, 5)):
        whole = net.hidden(TOKENS[row : row + 1, :length], None)
        torch.testing.assert_close(h[row], whole[0, -1:], rtol=0, atol=1e-5)
    cache = cache.select(torch.tensor([1]))
    cache.restart(torch.tensor([0]))
    h = net.hidden(TOKENS[1:, :4], None, cache)
    torch.testing.assert_close(h, net.hidden(TOKENS[1:, :4], None), rtol=0, atol=1e-5)
    assert cache.end == 4


def test_weights_are_converted_once_for_all_tokens_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no kernels. Autocast alone converts every weight at every call without a gradient."""
    monkeypatch.setattr(kernels, "usable", lambda x: False)
    net = made()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first, once = net(TOKENS, None), [b.mlp.down.narrow for b in net.blocks]
        again = net(TOKENS, None)
        assert torch.equal(first, again) and [b.mlp.down.narrow for b in net.blocks] == once
        assert all(narrow is not None and narrow[2].dtype is torch.bfloat16 for narrow in once)
        monkeypatch.setattr(torch, "is_grad_enabled", lambda: True)
        torch.testing.assert_close(net(TOKENS, None), first, rtol=0, atol=0)  # as autocast itself computes
        monkeypatch.undo()
        net.blocks[0].mlp.down.weight.mul_(2)
        monkeypatch.setattr(kernels, "usable", lambda x: False)
        assert not torch.equal(net(TOKENS, None), first)
