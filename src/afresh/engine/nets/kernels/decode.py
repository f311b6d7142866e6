"""The weights of a decoder, packed for `decode_step` (decode.cpp), and the keys and values of its sequences."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from afresh.engine.nets.kernels.build import library, tiles

Kind = Literal["float32", "bfloat16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "bfloat16", "int8")  # as numbered in decode.cpp
LONG, POINTER = ctypes.c_long, ctypes.c_void_p
BLOCK = 16  # positions whose keys lie together
FEW = 2_000_000  # weights times tokens in a step up to which one thread is faster than several


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
    """Sizes of a decoder, with the names of nets/transformer.py."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    dim: int
    mlp: int
    vocab: int
    eps: float


@dataclass
class DecodedSequences:
    """Keys and values of a batch of sequences: row r is in slot slots[r], of which lengths[r] positions are in use.

    `engine` has the weights that computed them.
    """

    engine: Engine
    k: Tensor
    v: Tensor
    slots: Tensor  # (B,) int64
    lengths: Tensor  # (B,) int64
    starts: Tensor  # (B,) int64: the position at which the current document begins
    capacity: int

    def select(self, rows: Tensor) -> DecodedSequences:
        """The sequences of these rows; keys and values are not copied."""
        return replace(self, slots=self.slots[rows], lengths=self.lengths[rows], starts=self.starts[rows])

    def extend(self, count: int, last: Collection[int] = ()) -> DecodedSequences:
        """The same sequences and `count` empty ones after them, in slots that nothing uses, those in `last` only if
        there are no others; there is room for twice as many if there are not enough slots."""
        used, total = set(self.slots.tolist()), self.k.shape[1]
        k, v = self.k, self.v
        if len(used) + count > total:
            grown = max(2 * total, len(used) + count)
            k, v = (t.new_empty(t.shape[0], grown, *t.shape[2:]) for t in (k, v))
            k[:, :total], v[:, :total], total = self.k, self.v, grown
        unused = (slot for slot in range(total) if slot not in used)
        free = sorted(unused, key=lambda slot: (slot in last, slot))[:count]
        zeros = self.lengths.new_zeros(count)
        slots = torch.cat([self.slots, torch.tensor(free, dtype=torch.int64)])
        lengths, starts = torch.cat([self.lengths, zeros]), torch.cat([self.starts, zeros])
        return replace(self, k=k, v=v, slots=slots, lengths=lengths, starts=starts)

    def copy_prefix(self, row: int, slot: int, length: int, start: int) -> None:
        """Gives an empty row the first `length` positions of a slot, of a document that begins at `start`."""
        own, blocks = int(self.slots[row]), -(-length // BLOCK) * BLOCK  # keys lie in blocks of positions
        if own != slot:
            for stored in (self.k, self.v):
                stored[:, own, :, :blocks] = stored[:, slot, :, :blocks]
        self.lengths[row], self.starts[row] = length, start

    def restart(self, rows: Tensor) -> None:
        """Empties the cache of some rows."""
        self.lengths[rows] = 0
        self.starts[rows] = 0


def quantise(w: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises w (O, I) to int8 with a factor (O,), so that the largest weight of each output becomes 127."""
    factor = w.abs().amax(1).clamp_min(1e-12) / 127
    return (w / factor[:, None]).round().to(torch.int8), factor


def pack(w: Tensor, kind: Kind) -> Tensor:
    """Packs w (O, I) into blocks of 16 outputs, the layout of decode.cpp; O is padded with zeros."""
    w = torch.nn.functional.pad(w, (0, 0, 0, -len(w) % 16))
    blocks = w.view(len(w) // 16, 16, w.shape[1])
    if kind == "float32":
        return blocks.mT.contiguous()
    return blocks.view(len(w) // 16, 16, -1, 2).transpose(1, 2).contiguous()


class Engine:
    """A decoder with packed weights."""

    def __init__(
        self,
        sizes: Sizes,
        kind: Kind,
        layers: Sequence[Mapping[str, Tensor | None]],
        outer: Mapping[str, Tensor | None],
    ) -> None:
        """`layers` and `outer` hold float32 tensors, named like the fields of Layer and Net in decode.cpp."""
        self.sizes, self.kind = sizes, kind
        self.tensors: list[Tensor] = []  # tensors to which the structures point
        structures = (_Layer * sizes.layers)(*(self._layer(tensors) for tensors in layers))
        self.layers = structures
        head = outer["head"]
        assert head is not None
        pointers = [self._keep(outer[k]) for k in ("embedding", "position", "cos", "sin", "norm")]
        numbers = (sizes.layers, sizes.width, sizes.heads, sizes.kv_heads, sizes.dim, sizes.mlp, int(tiles()))
        self.net = _Net(KINDS.index(kind), *numbers, sizes.eps, *pointers, self._weight(head), structures)
        self.weights = sum(t.numel() for t in self.tensors)

    def _keep(self, t: Tensor | None) -> int | None:
        """The address of a tensor, which stays allocated; None for None."""
        if t is None:
            return None
        self.tensors.append(t.detach().contiguous())
        return self.tensors[-1].data_ptr()

    def _weight(self, w: Tensor) -> _Weight:
        """Packs the weight of a linear map."""
        w, factor = w.detach(), None
        if self.kind == "int8":
            w, factor = quantise(w)
            factor = torch.nn.functional.pad(factor, (0, -len(factor) % 16))
        elif self.kind == "bfloat16":
            w = w.to(torch.bfloat16)
        packed = pack(w, self.kind)
        return _Weight(self._keep(packed), self._keep(factor), len(packed) * 16, w.shape[1])

    def _layer(self, tensors: Mapping[str, Tensor | None]) -> _Layer:
        """Packs a layer."""
        pointers = [self._keep(tensors[k]) for k in ("attention_norm", "mlp_norm", "q_norm", "k_norm", "bias")]
        weights = []
        for name in ("qkv", "out", "gate_up", "down"):
            w = tensors[name]
            assert w is not None
            weights.append(self._weight(w))
        return _Layer(*pointers, *weights)

    def sequences(self, batch: int, capacity: int) -> DecodedSequences:
        """Empty sequences: `batch` of them, for `capacity` tokens each."""
        s = self.sizes
        dtype = torch.float32 if self.kind == "float32" else torch.bfloat16
        padded = -(-capacity // BLOCK) * BLOCK
        size = (s.layers, batch, s.kv_heads, padded, s.dim)
        k, v = torch.empty(size, dtype=dtype), torch.empty(size, dtype=dtype)  # unwritten values are never used
        zeros = torch.zeros(batch, dtype=torch.int64)
        return DecodedSequences(self, k, v, torch.arange(batch), zeros, zeros.clone(), padded)

    def step(self, tokens: Tensor, counts: Tensor, starts: Tensor, c: Tensor | None, state: DecodedSequences) -> Tensor:
        """Feeds the first counts[b] (at least 1) of tokens (B, T) of each row; returns logits (B, V) after the last.

        Each token attends to the positions from `starts` (B, T) to its own. c (B, width) is added to all embeddings.
        """
        is_fed = torch.arange(tokens.shape[1]) < counts[:, None]  # (B, T)
        row = is_fed.nonzero()[:, 0]
        place = (state.lengths[:, None] + torch.arange(tokens.shape[1]))[is_fed]
        assert int(place.max()) < state.capacity
        token, slot, want = tokens[is_fed], state.slots[row], counts.cumsum(0) - 1
        added = None if c is None else c.float()[row].contiguous()
        logits = torch.empty(len(counts), self.net.head.outputs)
        store = _Store(state.k.data_ptr(), state.v.data_ptr(), state.k.shape[1], state.capacity)
        threads = torch.get_num_threads() if self.weights * len(token) > FEW else 1
        lib = library()
        assert lib is not None
        start = starts[is_fed]
        pointers = [POINTER(t.data_ptr()) for t in (token, slot, place, start)]
        lib.decode_step(
            *(ctypes.byref(self.net), ctypes.byref(store), LONG(len(token)), *pointers),
            *(None if added is None else POINTER(added.data_ptr()), LONG(len(counts)), POINTER(want.data_ptr())),
            *(POINTER(logits.data_ptr()), LONG(threads)),
        )
        state.lengths += counts
        state.starts = starts.gather(1, counts[:, None] - 1)[:, 0]
        return logits[:, : self.sizes.vocab]
