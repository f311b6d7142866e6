"""A causal decoder with the architecture of Qwen3: RMSNorm, QK-norm, RoPE, SwiGLU, grouped queries.

Yang et al. 2025 (Qwen3), Zhang and Sennrich 2019 (RMSNorm), Henry et al. 2020 (QK-norm), Su et al. 2021
(RoPE), Shazeer 2020 (SwiGLU), Ainslie et al. 2023 (grouped queries). A condition enters as a vector that is added to
the embedding of every token, so that an unconditional model has exactly this architecture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Space
from afresh.engine.nets.attention import causal_bias, is_short, short_attention
from afresh.engine.nets.conditioning import Conditioning
from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.nets.kernels.build import library

FIRST_ROOM = 256  # positions for which a new cache has room
# Of networks over tokens from 0.2M to 25M parameters: width, layers and heads, which are of 32 or 64.
TOKEN_SIZES = ((96, 3, 3), (128, 4, 4), (192, 4, 3), (256, 5, 4), (320, 6, 5), (384, 6, 6), (512, 8, 8))
TOKEN_RECIPE = {"optimizer": "muon", "lr": 3e-3, "matrix_lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1}


def token_examples(parameters: int, space: Space) -> int:
    """About 0.8 tokens for each parameter: with budgets of minutes, smaller networks with more data are better
    (docs/development/log.md)."""
    return 4 * parameters // (5 * space.shape[0])


def token_batch(examples: int, space: Space) -> int:
    """512 tokens a step for a run of 200,000 tokens, growing with their power 0.6, in powers of two
    (docs/development/log.md)."""
    context = space.shape[0]
    tokens = 512 * (max(1, examples * context) / 2e5) ** 0.6
    return 2 ** max(0, round(math.log2(max(1.0, tokens / context))))


@dataclass(frozen=True)
class DecoderShape:
    """Sizes and options of a decoder. `positions` > 0 adds learned positions, for tokens on a grid.

    The other options cover public models: Llama (no `qk_norm`; `rope_scaling` from version 3.1), Qwen2 (`qkv_bias`),
    Qwen3 (`head_dim`) and the small models of each (`tied`: the head shares the embedding's weight).
    """

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    context: int
    positions: int = 0
    qk_norm: bool = True
    rope_theta: float = 10_000.0
    eps: float = 1e-6
    head_dim: int = 0  # 0: width / heads
    tied: bool = False
    qkv_bias: bool = False
    rope_scaling: tuple[float, float, float, int] | None = None  # Llama 3.1: factor, low, high, original context
    causal: bool = True  # False: all positions attend to one another (masked diffusion)
    separator: int = -1  # no attention across this token, which separates the documents of a window; -1: no separator

    @property
    def dim(self) -> int:
        """Width of a head."""
        return self.head_dim or self.width // self.heads


@dataclass
class Cache:
    """Keys and values, each (layers, B, kv_heads, room, head width); lengths[b] are in use. The room grows with them,
    to capacity + 1: public models have a context that few texts fill.

    The last position receives the padding of rows with fewer tokens than others and is never attended to.
    """

    k: Tensor
    v: Tensor
    lengths: Tensor  # (B,) int64
    starts: Tensor  # (B,) int64: the position at which the current document begins
    capacity: int
    end: int = 0  # no row has more positions in use; it is known without reading `lengths`, for which a GPU is waited

    def places(self, count: int) -> Tensor:
        """The positions of the next `count` tokens of each row, (B, count)."""
        place = self.lengths[:, None] + torch.arange(count, device=self.lengths.device)
        return place.clamp_max(self.capacity)

    def make_room(self, count: int) -> None:
        """Moves `end` behind the next `count` tokens of each row, and, with prompts, to where it has to be."""
        if count > 1 and self.end:
            self.end = int(self.lengths.max())
        self.end = min(self.end + count, self.capacity + 1)
        if self.end > (room := self.k.shape[3]):
            more = min(max(self.end, 2 * room), self.capacity + 1) - room
            self.k, self.v = (F.pad(t, (0, 0, 0, more)) for t in (self.k, self.v))

    def select(self, rows: Tensor) -> Cache:
        """A cache of these rows, for a batch without its finished sequences."""
        return Cache(self.k[:, rows], self.v[:, rows], self.lengths[rows], self.starts[rows], self.capacity, self.end)

    def extend(self, count: int) -> Cache:
        """The same rows and `count` empty ones after them."""
        k, v = (torch.cat([t, t.new_zeros(t.shape[0], count, *t.shape[2:])], 1) for t in (self.k, self.v))
        zeros = self.lengths.new_zeros(count)
        lengths, starts = torch.cat([self.lengths, zeros]), torch.cat([self.starts, zeros])
        return Cache(k, v, lengths, starts, self.capacity, self.end)

    def restart(self, rows: Tensor) -> None:
        """Empties the cache of some rows."""
        self.lengths[rows] = 0
        self.starts[rows] = 0

    def add(self, layer: int, k: Tensor, v: Tensor, place: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stores k and v (B, K, T, D) at the positions `place` (B, T).

        Returns all keys and values up to `end`, and the mask (B, 1, T, end): each token attends to the positions from
        `start` (B, T) to its own.
        """
        rows, end = torch.arange(len(place), device=place.device)[:, None], self.end
        for stored, new in ((self.k, k), (self.v, v)):
            stored[layer].transpose(1, 2)[rows, place] = new.transpose(1, 2).to(stored.dtype)
        keys = torch.arange(end, device=place.device)
        mask = (keys <= place[:, None, :, None]) & (keys >= start[:, None, :, None])
        return self.k[layer, :, :, :end].to(k.dtype), self.v[layer, :, :, :end].to(v.dtype), mask


@dataclass(frozen=True)
class AttentionContext:
    """The positions of a batch of tokens, and to which positions each of them attends."""

    cos: Tensor  # (T, D), or (B, 1, T, D) with a cache
    sin: Tensor
    start: Tensor | None = None  # (B, T) the first position to attend to; None: the beginning
    mask: Tensor | None = None  # (B, 1, T, T) the same as a mask for PyTorch's attention
    bias: Tensor | None = None  # (T, T) for `short_attention`, where neither is needed
    cache: Cache | None = None


def document_starts(tokens: Tensor, separator: int, place: Tensor, before: Tensor | int = 0) -> Tensor:
    """The position (B, T) of the last separator up to each token; `before` (B, 1) if none exists in `tokens`."""
    last = torch.where(tokens == separator, place, -1).cummax(1).values
    return torch.where(last < 0, before, last)


def rope_table(
    context: int, dim: int, theta: float, scaling: tuple[float, float, float, int] | None = None
) -> tuple[Tensor, Tensor]:
    """cos and sin of shape (context, dim), with both halves equal, as in Llama's rotate-half layout.

    `scaling` (factor, low, high, original) stretches long wavelengths as Llama 3.1 does: those above original / low by
    the factor, those below original / high not at all, and those between by interpolation.
    """
    inverse = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    if scaling is not None:
        factor, low, high, original = scaling
        periods = original * inverse / (2 * math.pi)  # in the original context
        unscaled = ((periods - low) / (high - low)).clamp(0, 1)
        inverse = inverse * (unscaled + (1 - unscaled) / factor)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * inverse[None]
    angle = torch.cat([angle, angle], 1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (B, H, T, D) by tables (T, D)."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32 (Zhang and Sennrich 2019, eq. 4)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.usable(x):
            return kernels.norm(x, self.weight, self.eps)
        y = x if x.dtype is torch.float64 else x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight).to(x.dtype)

    def after(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """(x + delta, its normalisation)."""
        if kernels.usable(x) and delta.dtype == x.dtype:
            return kernels.add_norm(x, delta, self.weight, self.eps)
        x = x + delta
        return x, self(x)


class Linear(nn.Linear):
    """A linear map that uses the kernel under autocast to bfloat16; the weight is converted once after each change."""

    narrow: tuple[int, int, Tensor] | None = None  # address and version of the converted weight, its value
    keeps_narrow = True  # not where a weight is gathered for each use, which does not change its version

    def forward(self, x: Tensor) -> Tensor:
        fits = x.dtype is torch.bfloat16 and self.weight.dtype is torch.float32 and self.bias is None
        if fits and torch.is_autocast_enabled(x.device.type):
            if kernels.usable(x):
                return kernels.linear(x, self.weight, self.converted())
            # Autocast keeps what it has converted only for a backward pass: without one it would convert every weight
            # again for each token that is drawn.
            if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
                return F.linear(x, self.converted())
        return super().forward(x)

    def converted(self) -> Tensor:
        """The weight in bfloat16."""
        if not self.keeps_narrow:
            return self.weight.detach().to(torch.bfloat16)
        state = (self.weight.data_ptr(), self.weight._version)
        if self.narrow is None or self.narrow[:2] != state:
            self.narrow = (*state, self.weight.detach().to(torch.bfloat16))
        return self.narrow[2]


class Attention(nn.Module):
    """Self-attention with grouped queries: x (B, T, width) -> (B, T, width)."""

    def __init__(self, s: DecoderShape) -> None:
        super().__init__()
        self.s, self.dim = s, s.dim
        self.qkv = Linear(s.width, (s.heads + 2 * s.kv_heads) * self.dim, bias=s.qkv_bias)
        self.out = Linear(s.heads * self.dim, s.width, bias=False)
        self.q_norm = RMSNorm(self.dim, s.eps) if s.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.dim, s.eps) if s.qk_norm else nn.Identity()

    def forward(self, x: Tensor, context: AttentionContext, layer: int) -> Tensor:
        s, (b, t, _) = self.s, x.shape
        qkv = self.qkv(x)
        if context.cache is None and kernels.usable(qkv):
            return self.out(self.fused(qkv, context))
        h = qkv.view(b, t, s.heads + 2 * s.kv_heads, self.dim).transpose(1, 2)
        q, k, v = h.split([s.heads, s.kv_heads, s.kv_heads], 1)
        q = rotate(self.q_norm(q), context.cos, context.sin).to(v.dtype)
        k = rotate(self.k_norm(k), context.cos, context.sin).to(v.dtype)
        mask = context.mask
        if context.cache is not None and context.start is not None:
            k, v, mask = context.cache.add(layer, k, v, context.cache.places(t), context.start)
        if s.kv_heads != s.heads:
            k, v = (z.repeat_interleave(s.heads // s.kv_heads, 1) for z in (k, v))
        if context.bias is not None:
            y = short_attention(q, k, v, context.bias)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=s.causal and mask is None and t > 1)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))

    def fused(self, qkv: Tensor, context: AttentionContext) -> Tensor:
        """The same by the kernels, without a cache: (B, T, heads * dim)."""
        s, (b, t, _) = self.s, qkv.shape
        q_norm, k_norm = self.q_norm, self.k_norm
        norms = None
        if isinstance(q_norm, RMSNorm) and isinstance(k_norm, RMSNorm):
            norms = (q_norm.weight, k_norm.weight)
        half = self.dim // 2
        cos, sin = (z[:, :half].float().contiguous() for z in (context.cos, context.sin))  # both halves are equal
        q, k, v = kernels.split_heads(qkv, norms, cos, sin, s.heads, s.kv_heads, s.eps)
        if kernels.tiled(q) or is_short(b, s.heads, t, q):
            start = None if context.start is None else context.start.int()
            return kernels.attention(q, k, v, start, s.causal)
        if s.kv_heads != s.heads:
            k, v = (z.repeat_interleave(s.heads // s.kv_heads, 1) for z in (k, v))
        mask = context.mask
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=s.causal and mask is None and t > 1)
        return y.transpose(1, 2).reshape(b, t, -1)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.gate_up(x)
        if kernels.usable(h):
            return self.down(kernels.swiglu(h))
        gate, up = h.chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """Attention and SwiGLU, each after a normalisation and added to the residual stream."""

    def __init__(self, s: DecoderShape) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(s.width, s.eps)
        self.attention = Attention(s)
        self.mlp_norm = RMSNorm(s.width, s.eps)
        self.mlp = SwiGLU(s.width, s.mlp)

    def forward(
        self, x: Tensor, delta: Tensor | None, context: AttentionContext, layer: int, keep: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor]:
        """(residual stream x, last branch `delta`, which is not yet added to it) -> the same pair after this block.

        `keep`: what the attention's and the other branch, (B, T, width) each, are multiplied by: dropout.
        """
        x, y = (x, self.attention_norm(x)) if delta is None else self.attention_norm.after(x, delta)
        branch = self.attention(y, context, layer)
        x, y = self.mlp_norm.after(x, branch * keep[0] if keep else branch)
        branch = self.mlp(y)
        return x, branch * keep[1] if keep else branch


class Decoder(nn.Module):
    """Tokens (B, T) to logits (B, T, vocab), or to the summed cross-entropy of `targets`."""

    def __init__(self, shape: DecoderShape, spec: CondSpec) -> None:
        super().__init__()
        s = self.shape = shape
        self.embedding = nn.Embedding(s.vocab, s.width)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = RMSNorm(s.width, s.eps)
        self.head = None if s.tied else nn.Linear(s.width, s.vocab, bias=False)
        self.conditioning = Conditioning(spec, s.width) if spec else None
        self.position = nn.Embedding(s.positions, s.width) if s.positions else None
        cos, sin = rope_table(s.context + 1, s.dim, s.rope_theta, s.rope_scaling)
        self.packed: tuple[Any, Any] | None = None  # weights packed for decoding (nets/decoding.py)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Normal weights scaled by fan-in; zero for matrices that write to the residual stream (modded-nanogpt)."""
        for name, p in self.named_parameters():
            if p.dim() < 2 or name.startswith("conditioning"):
                continue
            if name.endswith(("attention.out.weight", "mlp.down.weight", "head.weight")):
                nn.init.zeros_(p)
            elif "embedding" in name or "position" in name:
                wide = 1 / math.sqrt(self.shape.width) if self.shape.tied else 0.5  # logits of about 1
                nn.init.normal_(p, std=wide if "embedding" in name else 0.1)
            else:
                nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.shape.width

    def condition(self, cond: Cond) -> Tensor | None:
        """The vector that is added to each token of a row, (B, width); None for an unconditional model."""
        return None if self.conditioning is None else self.conditioning(cond)

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype) -> Cache:
        s = self.shape
        size = (s.layers, batch, s.kv_heads, min(capacity + 1, FIRST_ROOM), s.dim)
        device = self.embedding.weight.device
        k, v = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        lengths, starts = (torch.zeros(batch, dtype=torch.int64, device=device) for _ in range(2))
        return Cache(k, v, lengths, starts, capacity)

    def hidden(
        self,
        tokens: Tensor,
        c: Tensor | None,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        keep: Sequence[Tensor] = (),
    ) -> Tensor:
        """Tokens (B, T) int64 -> hidden states (B, T, width).

        With a cache, the first counts[b] (None: all) tokens continue those in it. c (B, width), or (B, T, width), is
        added to the embeddings. `keep`: factors (B, T, width) of the embeddings and of the two branches of each block.
        """
        context, at = self.locate(tokens, cache)
        h = self.embedding(tokens)
        if c is not None:
            h = h + (c if c.dim() == 3 else c[:, None]).to(h.dtype)
        if self.position is not None:
            h = h + self.position.weight[at]
        if torch.is_autocast_enabled(h.device.type):
            h = h.to(torch.get_autocast_dtype(h.device.type))
        keep = [k.to(h.dtype) for k in keep]
        h = h * keep[0] if keep else h
        context = self.with_masks(context, h)
        delta = None
        for i, block in enumerate(self.blocks):
            h, delta = block(h, delta, context, i, keep[1 + 2 * i : 3 + 2 * i])
        if cache is not None and context.start is not None:
            new = torch.full_like(cache.lengths, tokens.shape[1]) if counts is None else counts
            cache.lengths += new
            cache.starts = context.start.gather(1, new[:, None] - 1)[:, 0]
        return self.norm(h) if delta is None else self.norm.after(h, delta)[1]

    def locate(self, tokens: Tensor, cache: Cache | None) -> tuple[AttentionContext, Any]:
        """The positions of tokens (B, T) and the beginnings of their documents; and the index of the position table."""
        count, separator = tokens.shape[1], self.shape.separator
        if cache is not None:
            cache.make_room(count)
            at = cache.places(count).clamp_max(self.shape.context)
            cos, sin = (self.get_buffer(k)[at][:, None] for k in ("cos", "sin"))
            return AttentionContext(
                cos, sin, document_starts(tokens, separator, at, cache.starts[:, None]), cache=cache
            ), at
        start: Tensor | None = None
        if separator >= 0:
            start = document_starts(tokens, separator, torch.arange(count, device=tokens.device))
            if not torch.compiler.is_compiling() and not bool(start.any()):
                start = None
        return AttentionContext(self.get_buffer("cos")[:count], self.get_buffer("sin")[:count], start), slice(0, count)

    def with_masks(self, context: AttentionContext, h: Tensor) -> AttentionContext:
        """Adds what attention to h (B, T, width) needs: rotary tables in its dtype, and a mask or a bias."""
        context = replace(context, cos=context.cos.to(h.dtype), sin=context.sin.to(h.dtype))
        if context.cache is not None:
            return context
        b, t, _ = h.shape
        if context.start is not None:
            places = torch.arange(t, device=h.device)
            mask = places >= context.start[:, None, :, None]
            return replace(context, mask=mask & (places <= places[:, None]) if self.shape.causal else mask)
        if kernels.usable(h) or not is_short(b, self.shape.heads, t, h):  # neither needs a bias
            return context
        bias = causal_bias(t, h)
        return replace(context, bias=bias if self.shape.causal else torch.zeros_like(bias))

    def logits(self, h: Tensor) -> Tensor:
        """Hidden states (..., width) -> logits (..., vocab), float32."""
        return (F.linear(h, self.embedding.weight) if self.head is None else self.head(h)).float()

    def forward(
        self,
        tokens: Tensor,
        c: Tensor | None,
        targets: Tensor | None = None,
        keep: Sequence[Tensor] = (),
        negatives: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, vocab), float32; with `targets` (B, T), their `nats` (B,) instead, or `sampled_nats` if there
        are `negatives`."""
        h = self.hidden(tokens, c, keep=keep)
        if targets is None:
            return self.logits(h)
        return self.nats(h, targets) if negatives is None else self.sampled_nats(h, targets, negatives)

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy of targets (B, T), -1 where they do not count, (B,)."""
        return self.token_nats(h, targets).sum(1)

    def sampled_nats(self, h: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """An estimate of `nats` in which all other tokens are represented by `negatives` (n,), drawn uniformly: sampled
        softmax (Jean et al. 2015, eq. 10), with the target itself left out."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        row, place = (targets >= 0).nonzero(as_tuple=True)
        state, aim = h[row, place], targets[row, place]
        right = (state.float() * F.embedding(aim, weight).float()).sum(-1)  # (M,)
        wrong = F.linear(state, F.embedding(negatives, weight)).float()  # (M, n)
        wrong = wrong + math.log(len(weight) / len(negatives))
        wrong = wrong.masked_fill(negatives == aim[:, None], -math.inf)
        nats = torch.logaddexp(right, wrong.logsumexp(-1)) - right
        return nats.new_zeros(len(h)).index_add(0, row, nats)

    def token_nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of each of the targets (B, T), 0 where it is -1 and does not count, (B, T)."""
        if kernels.usable(h):
            weight = self.embedding.weight if self.head is None else self.head.weight
            if not weight.requires_grad:
                return kernels.frozen_head_entropy(h.flatten(0, 1), weight, targets.flatten()).view(targets.shape)
            logits = F.linear(h, weight)
            return kernels.cross_entropy(logits.flatten(0, 1), targets.flatten()).view(targets.shape)
        logits = self.logits(h).flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="none").view(targets.shape)


def compilable(net: nn.Module, device: str) -> list[nn.Module]:
    """The modules for torch.compile: the decoder, but none on a CPU with kernels, which are faster."""
    return [] if device == "cpu" and library() is not None else [net]


def layers_of(net: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    """The parts of a network that are of one of these kinds."""
    return [m for m in net.modules() if isinstance(m, kinds)]
