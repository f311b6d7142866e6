"""Seeded tiny models of each architecture as `Base`."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Space
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.transformer import TransformerConfig, build
from afresh.runs.formats.base import Base, decoder_of

TEXT = "The cat sat on the mat, and 12 dogs ran. naïve café 中文字 😀\n" * 20
CONTEXT = 96
TOKENIZERS = {
    "chars": Tokenizer.learn_chars([TEXT]),
    "bytes": Tokenizer.all_bytes(),
    "bpe": Tokenizer.learn_bpe([TEXT], 300),
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3-tied": {"tied": True, "head_dim": 32, "kv_heads": 1},
    "llama": {"qk_norm": False},
    "llama-tied": {"qk_norm": False, "tied": True, "head_dim": 24},
    "llama-scaled": {"qk_norm": False, "rope_scaling": (8.0, 1.0, 4.0, 32), "rope_theta": 700.0, "eps": 1e-5},
    "qwen2": {"qk_norm": False, "qkv_bias": True},
}


def base_of(shape: str = "qwen3", tokenizer: str = "bpe", **more: Any) -> Base:
    """A model with weights so large that every part of the network changes the logits."""
    t = TOKENIZERS[tokenizer]
    config = TransformerConfig(
        **{"width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 96, "apart": False} | SHAPES[shape] | more
    )
    torch.manual_seed(0)
    net = build(config, Space("tokens", (CONTEXT,), vocab=(t.size,), stream=True), {})["decoder"]
    for p in net.parameters():
        torch.nn.init.normal_(p, mean=float(p.dim() == 1), std=0.15)
    weights = {k: v.detach() for k, v in net.state_dict().items()}
    return Base(config, CONTEXT, weights, t, f"tiny {shape}", t.special["end"])


def odd_texts(count: int = 200) -> list[str]:
    """Distinct strings of random characters of every plane, among them many that are in no training text, and marks
    that tokenizers treat in their own ways."""
    draw = random.Random(0)
    ranges = [(0, 0x20), (0x20, 0x7F), (0x80, 0x250), (0x370, 0x700), (0x2000, 0x2070), (0x4E00, 0x4F00)]
    ranges += [(0x4E2D, 0x4E2E), (0xE000, 0xE010), (0xFFF0, 0x10000), (0x1F600, 0x1F650), (0x10FFF0, 0x110000)]
    marks = ["  ", "\r\n", "e\u0301", "don't", "<0x0A>", "12345", "\u2581", "\ufeff", "\u200b"]
    texts: dict[str, None] = {}
    while len(texts) < count:
        parts = [chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(1, 12))]
        texts["".join(draw.choice([p, p, p, draw.choice(marks)]) for p in parts)] = None
    return list(texts)


def with_template(base: Base, template: str) -> Base:
    return replace(base, tokenizer=replace(base.tokenizer, chat_template=template))


def ids_of(base: Base) -> list[int]:
    return [base.tokenizer.special["end"], *base.tokenizer.encode(TEXT)][:CONTEXT]


@torch.no_grad()
def log_probabilities(base: Base) -> Tensor:
    """Log-probabilities (T, vocab) of the next token after each of `ids_of`."""
    return decoder_of(base)(torch.tensor([ids_of(base)]), None)[0].log_softmax(-1)
