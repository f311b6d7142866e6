"""Frozen layers in few bits: the library's own numbers, and gradients of the dense layer that they stand for."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.engine.nets.frozen_linear import BLOCK, KINDS, Kind, operators, packed
from afresh.engine.nets.transformer import Decoder, DecoderShape
from afresh.engine.training.lora import LoraConfig, adapted, attach
from afresh.engine.training.weights import BaseWeights, in_few_bits, load_few_bits, unpacked_state
from tests.needs import package

SHAPE = DecoderShape(11, 24, 2, 4, 2, 40, 16, head_dim=8, qkv_bias=True)


def dense() -> Decoder:
    net = Decoder(SHAPE, {})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / p.shape[-1] ** 0.5 if p.dim() > 1 else 1 + 0.1 * noise)
    return net


def few_bits(net: Decoder, kind: Kind) -> tuple[Decoder, dict[str, Tensor]]:
    """A network with the weights of `net` in few bits, and these."""
    package("bitsandbytes", "'afresh[quantized]'")
    weights = in_few_bits(net, net.state_dict(), kind)
    small = Decoder(SHAPE, {})
    load_few_bits(small, weights)
    return small, weights


@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_the_numbers_of_the_library(kind: Kind) -> None:
    """Of layers whose rows are no whole blocks, too: outputs are the products with what the library itself unpacks."""
    functional = package("bitsandbytes.functional", "'afresh[quantized]'")
    net = dense()
    small, _ = few_bits(net, kind)
    weight = net.get_submodule("blocks.0.attention.qkv").weight
    layer = small.get_submodule("blocks.0.attention.qkv")
    if kind == "nf4":
        codes, state = functional.quantize_4bit(weight.detach(), quant_type="nf4", blocksize=BLOCK)
        state.absmax = state.absmax.bfloat16().float()
        own = functional.dequantize_4bit(codes, state)
    else:
        levels = functional.create_linear_map()
        codes, state = functional.quantize_blockwise(weight.detach(), code=levels, blocksize=BLOCK)
        state.absmax = state.absmax.bfloat16().float()
        own = functional.dequantize_blockwise(codes, state)
    error = (own - weight).abs().mean() / weight.abs().mean()
    x = torch.randn(3, 5, 24)
    assert torch.allclose(layer.weight, own, atol=1e-6)
    assert torch.allclose(layer(x), x @ own.T + layer.bias, atol=1e-5)
    assert 0 < error < (0.12 if kind == "nf4" else 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_learn_as_on_the_dense_network_of_the_same_numbers(kind: Kind) -> None:
    small, _ = few_bits(dense(), kind)
    same = Decoder(SHAPE, {})
    same.load_state_dict(unpacked_state(small))
    tokens = torch.arange(12).view(2, 6) % 11
    found = []
    for net in (small, same):
        attach(net, LoraConfig(rank=4, alpha=12.0), Rng(0))
        with torch.no_grad():
            for layer in adapted(net).values():
                for p in layer.adapter("default").parameters():
                    p.add_(0.05)
        loss = net(tokens, None, tokens.roll(-1, 1)).sum()
        loss.backward()
        found.append([loss, *(p.grad for p in net.parameters() if p.requires_grad)])
    assert len(found[0]) == 17
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    merged = Decoder(SHAPE, {})
    merged.load_state_dict(unpacked_state(small))  # with the adapters, as exports have it
    assert torch.allclose(merged(tokens, None), small(tokens, None), atol=1e-4)


def test_weights_are_counted_and_fit_their_bytes() -> None:
    net = dense()
    _, nf4 = few_bits(net, "nf4")
    _, int8 = few_bits(net, "int8")
    full = sum(p.numel() for p in net.parameters())
    hidden = sum(m.weight.numel() for k, m in net.named_modules() if isinstance(m, nn.Linear) and k != "head")
    for weights, bits in ((nf4, 4.25), (int8, 8.25)):
        base = BaseWeights(weights, LoraConfig())
        assert base.few_bits
        assert full <= base.count <= full + BLOCK * 8
        assert abs(base.bytes - 4 * (full - hidden) - hidden * bits / 8) < 64


def test_the_layers_of_another_network_are_refused() -> None:
    _, weights = few_bits(dense(), "nf4")
    with pytest.raises(UserError, match="do not fit this network"):
        BaseWeights(weights, None).apply({"net": nn.Linear(4, 4)}, 0)


def test_the_extra_is_named_where_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    operators.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    try:
        with pytest.raises(UserError, match=r"afresh\[quantized\]"):
            packed(torch.ones(2, 2), "nf4")
        assert "kernels" not in sys.modules or sys.modules["kernels"] is not None
    finally:
        operators.cache_clear()
