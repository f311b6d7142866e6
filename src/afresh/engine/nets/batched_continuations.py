"""Many continuations of one beginning, computed together: keys and values of what they share are held once.

A branch of tokens attends to the beginning of its row and to itself; a branch may end in several twigs, each of which
sees the branch and itself, and no other twig. The logits are those that the network gives to the beginning, the branch
and the twig alone, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.engine.nets.transformer import Attention, Block, Decoder, rotate


@dataclass(frozen=True)
class Beginning:
    """Keys and values of each layer, (B, heads, L, D) each, of which the first counts[b] are in use."""

    keys: list[Tensor]
    values: list[Tensor]
    counts: Tensor  # (B,) int64


@dataclass(frozen=True)
class Twigs:
    """A branch of `stem` tokens with any number of twigs of `each` tokens after it."""

    stem: int
    each: int

    def places(self, t: int) -> Tensor:
        """The position of each of t tokens after the beginning, (T,)."""
        at = torch.arange(t)
        return torch.where(at < self.stem, at, self.stem + (at - self.stem) % self.each)

    def hidden(self, t: int) -> Tensor:
        """What each of t tokens does not attend to of its branch, (T, T) bool."""
        at = torch.arange(t)
        twig = torch.where(at < self.stem, -1, (at - self.stem).div(self.each, rounding_mode="floor"))
        seen = (at <= at[:, None]) & ((twig == -1) | (twig == twig[:, None]))
        return ~seen


@torch.no_grad()
def begin(net: Decoder, x: Tensor, counts: Tensor, c: Tensor | None) -> Beginning | None:
    """The first counts[b] (at least 0) of the tokens x (B, L) of each row; None if there are none at all."""
    return run_branches(net, x[:, None], None, counts, c)[1] if x.shape[1] else None


@torch.no_grad()
def go_on(net: Decoder, before: Beginning, x: Tensor, c: Tensor | None) -> Beginning:
    """A beginning with the tokens x (B, T) after it."""
    t, longest = x.shape[1], int(before.counts.max()) + x.shape[1]
    new = run_branches(net, x[:, None], before, before.counts, c)[1]
    rows, at = torch.arange(len(x), device=x.device)[:, None], before.counts[:, None] + torch.arange(t, device=x.device)

    def joined(old: list[Tensor], added: list[Tensor]) -> list[Tensor]:
        out = [F.pad(k, (0, 0, 0, max(0, longest - k.shape[2]))).transpose(1, 2) for k in old]
        for k, more in zip(out, added, strict=True):
            k[rows, at] = more.transpose(1, 2)
        return [k.transpose(1, 2) for k in out]

    return Beginning(joined(before.keys, new.keys), joined(before.values, new.values), before.counts + t)


@torch.no_grad()
def branch_logits(
    net: Decoder, before: Beginning | None, branches: Tensor, c: Tensor | None, twigs: Twigs | None = None
) -> Tensor:
    """The logits of the token after each branch (B, M, T), which continues the beginning of its row, (B, M, V); or
    after each of its `twigs`, (B, M, twigs, V)."""
    none = torch.zeros(len(branches), dtype=torch.int64, device=branches.device)
    h = run_branches(net, branches, before, none, c, twigs)[0]
    if twigs is None:
        return net.logits(h[:, :, -1])
    return net.logits(h[:, :, twigs.stem + twigs.each - 1 :: twigs.each])


def run_branches(
    net: Decoder,
    tokens: Tensor,
    before: Beginning | None,
    counts: Tensor,
    c: Tensor | None,
    twigs: Twigs | None = None,
) -> tuple[Tensor, Beginning]:
    """The hidden states (B, M, T, width) of branches after their beginning; and, of one branch a row, its keys and
    values as a beginning with `counts` tokens."""
    t = tokens.shape[2]
    twigs = twigs or Twigs(t, 1)
    first = torch.zeros_like(counts) if before is None else before.counts
    at = first[:, None] + twigs.places(t).to(tokens.device)  # (B, T)
    cos, sin = (net.get_buffer(name)[at.clamp_max(net.shape.context)][:, None, None] for name in ("cos", "sin"))
    unseen = twigs.hidden(t).to(tokens.device)
    x = net.embedding(tokens)
    if c is not None:
        x = x + c[:, None, None]
    keys, values = [], []
    for i, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        y, k, v = attend(block.attention, block.attention_norm(x), (cos, sin), before, i, unseen)
        x = x + y
        x = x + block.mlp(block.mlp_norm(x))
        keys.append(k[:, :, 0])
        values.append(v[:, :, 0])
    return net.norm(x), Beginning(keys, values, counts)


def attend(
    net: Attention, x: Tensor, tables: tuple[Tensor, Tensor], before: Beginning | None, layer: int, unseen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of branches x (B, M, T, width) to their beginning and to themselves, but for what is `unseen` (T, T);
    and their keys and values (B, heads, M, T, D)."""
    s, (b, m, t, _) = net.s, x.shape
    h = net.qkv(x).view(b, m, t, s.heads + 2 * s.kv_heads, s.dim).permute(0, 3, 1, 2, 4)
    q, k, v = h.split([s.heads, s.kv_heads, s.kv_heads], 1)  # (B, heads, M, T, D)
    q, k = rotate(net.q_norm(q.contiguous()), *tables), rotate(net.k_norm(k.contiguous()), *tables)
    if s.kv_heads != s.heads:
        k, v = (z.repeat_interleave(s.heads // s.kv_heads, 1) for z in (k, v))
    scale = s.dim**-0.5
    own = (q @ k.transpose(-1, -2) * scale).masked_fill(unseen, -torch.inf)  # (B, heads, M, T, T)
    if before is None:
        y = own.softmax(-1) @ v
    else:
        flat = q.reshape(b, s.heads, m * t, s.dim)
        past = flat @ before.keys[layer].transpose(-1, -2) * scale  # (B, heads, M T, L)
        length = past.shape[-1]
        unused = torch.arange(length, device=x.device) >= before.counts[:, None]
        past = past.masked_fill(unused[:, None, None], -torch.inf).view(b, s.heads, m, t, length)
        weights = torch.cat([past, own], -1).softmax(-1)
        seen = weights[..., :length].reshape(b, s.heads, m * t, length) @ before.values[layer]
        y = seen.view(b, s.heads, m, t, s.dim) + weights[..., length:] @ v
    return net.out(y.permute(0, 2, 3, 1, 4).reshape(b, m, t, s.heads * s.dim)), k, v
