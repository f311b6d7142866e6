"""A decoder's weights packed for `decode_step` (decode.cpp), and the keys and values of the sequences it works on."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from afresh.nets.kernels.build import library, tiles

Kind = Literal["float32", "bfloat16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "bfloat16", "int8")  # as numbered in decode.cpp
LONG, POINTER = ctypes.c_long, ctypes.c_void_p
FEW = 2_000_000  # weights a step below which a second thread costs more than it brings


class _Weight(ctypes.Structure):
    _fields_ = (("data", POINTER), ("factor", POINTER), ("outputs", LONG), ("inputs", LONG))


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, POINTER) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm", "bias")),
        *((name, _Weight) for name in ("qkv", "out", "gate_up", "down")),
    )


class _Net(ctypes.Structure):
    _fields_ = (
        *((name, LONG) for name in ("kind", "layers", "width", "heads", "kv", "dim", "mlp", "tiles")),
        ("eps", ctypes.c_float),
        *((name, POINTER) for name in ("embedding", "position", "cos", "sin", "norm")),
        ("head", _Weight),
        ("layer", ctypes.POINTER(_Layer)),
    )


class _Store(ctypes.Structure):
    _fields_ = (("k", POINTER), ("v", POINTER), ("slots", LONG), ("capacity", LONG))


@dataclass(frozen=True)
class Sizes:
    """Of a decoder, as nets/transformer.py names them."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    dim: int
    mlp: int
    vocab: int
    eps: float


@dataclass
class Sequences:
    """Keys and values of the sequences in hand: row r lies in slot slots[r], lengths[r] places are filled.

    `engine` has the weights with which they were begun.
    """

    engine: Engine
    k: Tensor
    v: Tensor
    slots: Tensor  # (B,) int64
    lengths: Tensor  # (B,) int64
    starts: Tensor  # (B,) int64: where the document in hand begins
    capacity: int

    def select(self, rows: Tensor) -> Sequences:
        """Keep some rows: nothing is moved."""
        return replace(self, slots=self.slots[rows], lengths=self.lengths[rows], starts=self.starts[rows])

    def restart(self, rows: Tensor) -> None:
        """Forget what some rows have seen."""
        self.lengths[rows] = 0
        self.starts[rows] = 0


def quantise(w: Tensor) -> tuple[Tensor, Tensor]:
    """(O, I) -> int8 and a factor (O,): each output's largest weight becomes 127."""
    factor = w.abs().amax(1).clamp_min(1e-12) / 127
    return (w / factor[:, None]).round().to(torch.int8), factor


def pack(w: Tensor, kind: Kind) -> Tensor:
    """(O, I) -> blocks of 16 outputs as decode.cpp wants them; O is filled up with zeros."""
    w = torch.nn.functional.pad(w, (0, 0, 0, -len(w) % 16))
    blocks = w.view(len(w) // 16, 16, w.shape[1])
    if kind == "float32":
        return blocks.mT.contiguous()
    return blocks.view(len(w) // 16, 16, -1, 2).transpose(1, 2).contiguous()


class Engine:
    """A decoder ready to decode. Raises ValueError when its shape does not fit (see `fits`)."""

    def __init__(
        self,
        sizes: Sizes,
        kind: Kind,
        layers: Sequence[Mapping[str, Tensor | None]],
        outer: Mapping[str, Tensor | None],
    ) -> None:
        """`layers` and `outer` hold float32 tensors named as the fields of Layer and Net in decode.cpp."""
        self.sizes, self.kind = sizes, kind
        self.kept: list[Tensor] = []  # what the structures point to
        made = (_Layer * sizes.layers)(*(self._layer(given) for given in layers))
        self.layers = made
        head = outer["head"]
        assert head is not None
        pointers = [self._keep(outer[k]) for k in ("embedding", "position", "cos", "sin", "norm")]
        numbers = (sizes.layers, sizes.width, sizes.heads, sizes.kv_heads, sizes.dim, sizes.mlp, int(tiles()))
        self.net = _Net(KINDS.index(kind), *numbers, sizes.eps, *pointers, self._weight(head), made)
        self.weights = sum(t.numel() for t in self.kept)

    def _keep(self, t: Tensor | None) -> int | None:
        if t is None:
            return None
        self.kept.append(t.detach().contiguous())
        return self.kept[-1].data_ptr()

    def _weight(self, w: Tensor) -> _Weight:
        w, factor = w.detach(), None
        if self.kind == "int8":
            w, factor = quantise(w)
            factor = torch.nn.functional.pad(factor, (0, -len(factor) % 16))
        elif self.kind == "bfloat16":
            w = w.to(torch.bfloat16)
        packed = pack(w, self.kind)
        return _Weight(self._keep(packed), self._keep(factor), len(packed) * 16, w.shape[1])

    def _layer(self, given: Mapping[str, Tensor | None]) -> _Layer:
        pointers = [self._keep(given[k]) for k in ("attention_norm", "mlp_norm", "q_norm", "k_norm", "bias")]
        weights = []
        for name in ("qkv", "out", "gate_up", "down"):
            w = given[name]
            assert w is not None
            weights.append(self._weight(w))
        return _Layer(*pointers, *weights)

    def sequences(self, batch: int, capacity: int) -> Sequences:
        """Room for `batch` sequences of `capacity` tokens."""
        s = self.sizes
        dtype = torch.float32 if self.kind == "float32" else torch.bfloat16
        room = -(-capacity // 16) * 16
        size = (s.layers, batch, s.kv_heads, room, s.dim)
        k, v = torch.empty(size, dtype=dtype), torch.empty(size, dtype=dtype)  # what was not written is never used
        nothing = torch.zeros(batch, dtype=torch.int64)
        return Sequences(self, k, v, torch.arange(batch), nothing, nothing.clone(), room)

    def step(self, tokens: Tensor, counts: Tensor, starts: Tensor, c: Tensor | None, state: Sequences) -> Tensor:
        """Feed the first counts[b] (at least 1) of tokens (B, T) of each row; logits (B, V) after the last of them.

        Each looks at the places from `starts` (B, T) to its own. c (B, width) is added to every token's embedding.
        """
        seen = torch.arange(tokens.shape[1]) < counts[:, None]  # (B, T)
        row = seen.nonzero()[:, 0]
        place = (state.lengths[:, None] + torch.arange(tokens.shape[1]))[seen]
        assert int(place.max()) < state.capacity
        token, slot, want = tokens[seen], state.slots[row], counts.cumsum(0) - 1
        added = None if c is None else c.float()[row].contiguous()
        logits = torch.empty(len(counts), self.net.head.outputs)
        store = _Store(state.k.data_ptr(), state.v.data_ptr(), state.k.shape[1], state.capacity)
        threads = torch.get_num_threads() if self.weights * len(token) > FEW else 1
        lib = library()
        assert lib is not None
        start = starts[seen]
        given = [POINTER(t.data_ptr()) for t in (token, slot, place, start)]
        lib.decode_step(
            *(ctypes.byref(self.net), ctypes.byref(store), LONG(len(token)), *given),
            *(None if added is None else POINTER(added.data_ptr()), LONG(len(counts)), POINTER(want.data_ptr())),
            *(POINTER(logits.data_ptr()), LONG(threads)),
        )
        state.lengths += counts
        state.starts = starts.gather(1, counts[:, None] - 1)[:, 0]
        return logits[:, : self.sizes.vocab]
