"""Decoding token by token with a key/value cache: by the compiled engine on a CPU, by PyTorch elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.engine.nets.frozen_linear import FrozenLinear
from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.nets.kernels.decode import DecodedSequences, Engine, Kind, Sizes
from afresh.engine.nets.transformer import Block, Decoder, RMSNorm, document_starts, layers_of


class CausalNet(Protocol):
    """What is asked of a network that continues tokens: nets.transformer.Decoder, nets.causal_lm.CausalLM.

    A cache has `select(rows)`, `extend(count)` and `restart(rows)` (nets.transformer.Cache).
    """

    @property
    def device(self) -> torch.device: ...
    @property
    def width(self) -> int: ...  # of the hidden states
    def condition(self, cond: Cond) -> Tensor | None: ...
    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype) -> Any: ...
    def hidden(
        self,
        tokens: Tensor,
        c: Tensor | None,
        cache: Any = None,
        counts: Tensor | None = None,
        keep: Sequence[Tensor] = (),
    ) -> Tensor: ...
    def logits(self, h: Tensor) -> Tensor: ...
    def token_nats(self, h: Tensor, targets: Tensor) -> Tensor: ...
    def __call__(
        self,
        tokens: Tensor,
        c: Tensor | None,
        targets: Tensor | None = None,
        keep: Sequence[Tensor] = (),
        negatives: Tensor | None = None,
    ) -> Tensor: ...


def engine_of(net: CausalNet, kind: Kind) -> Engine | None:
    """The engine with the network's current weights, which are packed at the first call and after each change.

    None without an engine for the network: no kernels, another device, or an unsupported shape.
    """
    if not isinstance(net, Decoder):
        return None
    s, weight = net.shape, net.embedding.weight
    if not s.causal or s.width % 2 or s.mlp % 2 or s.dim % 2 or weight.dtype is not torch.float32:
        return None
    if not kernels.usable(weight):
        return None
    if layers_of(net, FrozenLinear):  # the engine's copy of them would take as much memory as was saved
        return None
    # The address and the version of each weight, which change when a weight does.
    state = (kind, tuple((p.data_ptr(), p._version) for p in net.parameters()))
    if net.packed is None or net.packed[0] != state:
        net.packed = (state, pack(net, kind))
    return net.packed[1]


def pack(net: Decoder, kind: Kind) -> Engine:
    """An engine with copies of the network's weights in the precision `kind`."""
    s = net.shape

    def weight_of(m: Any) -> Tensor | None:
        return m.weight if isinstance(m, RMSNorm) else None

    layers: list[dict[str, Tensor | None]] = [
        {
            "attention_norm": b.attention_norm.weight,
            "mlp_norm": b.mlp_norm.weight,
            "q_norm": weight_of(b.attention.q_norm),
            "k_norm": weight_of(b.attention.k_norm),
            "bias": b.attention.qkv.bias,
            "qkv": b.attention.qkv.weight,
            "out": b.attention.out.weight,
            "gate_up": b.mlp.gate_up.weight,
            "down": b.mlp.down.weight,
        }
        for b in net.blocks
        if isinstance(b, Block)
    ]
    half = s.dim // 2
    outer: dict[str, Tensor | None] = {
        "embedding": net.embedding.weight,
        "position": None if net.position is None else net.position.weight,
        "cos": net.get_buffer("cos")[:, :half],
        "sin": net.get_buffer("sin")[:, :half],
        "norm": net.norm.weight,
        "head": net.embedding.weight if net.head is None else net.head.weight,
    }
    sizes = Sizes(s.layers, s.width, s.heads, s.kv_heads, s.dim, s.mlp, s.vocab, s.eps)
    return Engine(sizes, kind, layers, outer)


@torch.no_grad()
def decode(
    net: CausalNet, tokens: Tensor, counts: Tensor | None, c: Tensor | None, state: Any, capacity: int, kind: Kind
) -> tuple[Tensor, Any]:
    """Feeds the first counts[b] (None: all) of tokens (B, T) to each row.

    Returns the logits (B, V) after the last of them, and the state: a cache of the network or DecodedSequences. `state`
    is None in the first call.
    """
    if counts is None:
        counts = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    engine = state.engine if isinstance(state, DecodedSequences) else engine_of(net, kind) if state is None else None
    if engine is not None:
        state = engine.sequences(len(tokens), capacity) if state is None else state
        place = state.lengths[:, None] + torch.arange(tokens.shape[1])
        assert isinstance(net, Decoder)
        starts = document_starts(tokens, net.shape.separator, place, state.starts[:, None])
        return engine.step(tokens, counts, starts, c, state), state
    kind_of_device = tokens.device.type
    narrow = torch.get_autocast_dtype(kind_of_device) if torch.is_autocast_enabled(kind_of_device) else torch.float32
    cache = net.new_cache(len(tokens), capacity, narrow) if state is None else state
    h = net.hidden(tokens, c, cache, counts)
    return net.logits(h[torch.arange(len(h), device=h.device), counts - 1]), cache


def kind_of(weights: Kind | Literal["auto"], device: torch.device) -> Kind:
    """The precision of weights during decoding; `auto` is bfloat16 under autocast, otherwise float32."""
    return weights if weights != "auto" else "bfloat16" if torch.is_autocast_enabled(device.type) else "float32"


def check_engine(net: CausalNet, weights: Kind | Literal["auto"]) -> None:
    """Raises UserError if a precision of the weights has no engine."""
    if weights != "auto" and engine_of(net, weights) is None:
        raise UserError(
            f"weights={weights} needs a CPU with compiled kernels (see afresh doctor), a network for them, and "
            f"a base that was not frozen in few bits. This model is on {net.device.type}. Leave `weights` out."
        )
