"""What one example is once encoded, and what it is asked to be: spaces, conditions, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from afresh.core.rng import Rng


@dataclass(frozen=True)
class Space:
    """What one example is once encoded.

    `tokens`: integers of shape (T,) (or (T, K): K levels), one vocabulary size a level. `field`: real numbers of shape
    (C, *grid) in about [-1, 1], whose standard deviation on the training split is `std`. A `stream` holds documents of
    any length from which windows of T tokens are cut; else every example has exactly T. `grid`: tokens lie on a raster,
    (height, width), whose last axis may be the K residual codes of a place, coarse to fine. `axes` names those of a
    field's grid: height and width of a picture, frequency and time of a sound, whose time lasts `seconds`.
    Documents that are `records` (conversations) stand alone: no window holds two, none is preceded.
    """

    kind: Literal["tokens", "field"]
    shape: tuple[int, ...]
    vocab: tuple[int, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)  # begin, end, pad, ... -> id
    stream: bool = False
    grid: tuple[int, ...] = ()
    std: float = 1.0
    records: bool = False
    axes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def timed(self) -> bool:
        """Whether an axis is time: no such field is a picture, or may be mirrored."""
        return "time" in self.axes


@dataclass(frozen=True)
class Part:
    """One named way to say what a sample should be.

    `label`: one of `classes`, a (B,) int64. `number`: (B,) float32, standardised by (mean, std).
    `prompt`: (B, S) int64 ids of the words of a caption, from `classes`; 0 is padding, 1 an unknown word.
    `vector`: (B, E) float32, what a text encoder made of a caption. `aligned`: (B, *shape) float32 in about [-1, 1], a
    field on the grid of x: another picture, an edge map.
    """

    kind: Literal["label", "number", "prompt", "vector", "aligned"]
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    length: int = 0  # S of a prompt
    shape: tuple[int, ...] = ()  # of a row of a vector (E,), of an aligned field (C, *grid)

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one sample's value."""
        return (self.length,) if self.kind == "prompt" else self.shape

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64 if self.kind in ("label", "prompt") else torch.float32


CondSpec = Mapping[str, Part]


@dataclass(frozen=True)
class Cond:
    """What each of B samples is asked to be: parts by name, and whether each part is present.

    `given` holds known values of x with `given_mask` true where they are known: a prefix of tokens, the
    rim of a hole. It is never nulled by `null()` unless it is named. `negative` is what guidance is to steer away from,
    where that is something (`away`). `toward`: another request with the same parts, and how much of each row is that
    one's, (B,) from 0 to 1: networks mix what they make of both.
    """

    size: int
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B, ...)
    present: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B,) bool
    given: Tensor | None = None  # (B, *prefix of x's shape)
    given_mask: Tensor | None = None  # like given, bool
    negative: Cond | None = None  # as many rows, the same parts
    toward: tuple[Cond, Tensor] | None = None

    def away(self) -> Cond:
        """What guidance steers away from: `negative`, or the request that names no part. What is known stays known."""
        if self.negative is None:
            return self.null()
        return replace(self.negative, given=self.given, given_mask=self.given_mask)

    def null(self, names: Iterable[str] | None = None) -> Cond:
        """The same request with some parts (all, when `names` is None) left out."""
        gone = set(self.parts if names is None else names)
        present = {k: torch.zeros_like(v) if k in gone else v for k, v in self.present.items()}
        toward = None if self.toward is None else (self.toward[0].null(names), self.toward[1])
        if "given" in gone:
            return replace(self, present=present, given=None, given_mask=None, toward=toward)
        return replace(self, present=present, toward=toward)

    def drop(self, keep: Mapping[str, Tensor]) -> Cond:
        """Leave out part `name` of row b where keep[name][b] is false."""
        toward = None if self.toward is None else (self.toward[0].drop(keep), self.toward[1])
        return replace(
            self, present={k: v & keep[k] if k in keep else v for k, v in self.present.items()}, toward=toward
        )

    def map(self, f: Callable[[Tensor], Tensor], size: int | None = None) -> Cond:
        """Apply `f` to every tensor along its batch dimension."""
        return Cond(
            self.size if size is None else size,
            {k: f(v) for k, v in self.parts.items()},
            {k: f(v) for k, v in self.present.items()},
            None if self.given is None else f(self.given),
            None if self.given_mask is None else f(self.given_mask),
            None if self.negative is None else self.negative.map(f, size),
            None if self.toward is None else (self.toward[0].map(f, size), f(self.toward[1])),
        )

    def select(self, rows: Tensor) -> Cond:
        """Rows by index, (R,) int64."""
        return self.map(lambda v: v[rows.to(v.device)], len(rows))

    def repeat(self, n: int) -> Cond:
        """Every row n times in turn: a a b b."""
        return self.map(lambda v: v.repeat_interleave(n, 0), self.size * n)

    def to(self, device: torch.device | str) -> Cond:
        return self.map(lambda v: v.to(device))

    @staticmethod
    def cat(conds: Sequence[Cond]) -> Cond:
        """Stack requests with the same parts, one after the other. Where one has a negative, all do; so with `toward`,
        of which the others have nothing."""

        def join(pick: Callable[[Cond], Tensor | None]) -> Tensor | None:
            found = [t for t in map(pick, conds) if t is not None]
            return torch.cat(found) if found else None

        toward = None
        if shares := [c.toward[1] for c in conds if c.toward is not None]:
            each = [c.toward or (replace(c, negative=None), shares[0].new_zeros(c.size)) for c in conds]
            toward = Cond.cat([c for c, _ in each]), torch.cat([share for _, share in each])
        return Cond(
            sum(c.size for c in conds),
            {k: torch.cat([c.parts[k] for c in conds]) for k in conds[0].parts},
            {k: torch.cat([c.present[k] for c in conds]) for k in conds[0].present},
            join(lambda c: c.given),
            join(lambda c: c.given_mask),
            Cond.cat([c.away() for c in conds]) if any(c.negative is not None for c in conds) else None,
            toward,
        )

    @staticmethod
    def nothing(spec: CondSpec, size: int) -> Cond:
        """A request for `size` samples that names no part: what guidance steers away from."""
        parts = {name: torch.zeros((size, *part.row), dtype=part.dtype) for name, part in spec.items()}
        return Cond(size, parts, {k: torch.zeros(size, dtype=torch.bool) for k in parts})


@dataclass(frozen=True)
class Batch:
    """B examples on their way into a loss.

    For tokens, x is (B, T + 1): one token of context (the one before the window, or `begin`) and the T
    tokens to predict. `index` (B,) int64 numbers the draw since the start of training; all noise is keyed
    by it, so that neither batch size nor rank changes what an example sees.
    """

    x: Tensor
    cond: Cond
    index: Tensor
    mask: Tensor | None = None  # (B, T) bool: which targets count; None = all
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # win, lose, advantage, ...

    def select(self, rows: Tensor) -> Batch:
        mask = None if self.mask is None else self.mask[rows]
        extras = {k: v[rows] for k, v in self.extras.items()}
        return Batch(self.x[rows], self.cond.select(rows), self.index[rows], mask, extras)

    def to(self, device: torch.device | str) -> Batch:
        mask = None if self.mask is None else self.mask.to(device)
        extras = {k: v.to(device) for k, v in self.extras.items()}
        return Batch(self.x.to(device), self.cond.to(device), self.index.to(device), mask, extras)


@dataclass(frozen=True)
class Examples:
    """An encoded split, held compactly in memory.

    Field: x (N, C, *grid), uint8 or float; a batch is x * scale + shift. Tokens of a fixed length: x (N, T).
    A stream: x (total,) with document d at x[bounds[d] : bounds[d + 1]]. `cond` has one row an example
    (a document, for a stream). `bytes` is the size of what is learnt in its raw form (UTF-8 for text). `mask` (total,)
    bool says which tokens of a stream of records are to be predicted.
    """

    x: Tensor
    cond: Cond
    scale: float = 1.0
    shift: float = 0.0
    bounds: Tensor | None = None  # (D + 1,) int64
    bytes: int = 0
    mask: Tensor | None = None
    vary: Callable[[Batch, Rng], Batch] | None = None  # what training does to its batches; judging does not

    def __len__(self) -> int:
        return len(self.x) if self.bounds is None else len(self.bounds) - 1
