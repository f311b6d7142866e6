"""Spaces of encoded examples, conditions, batches and encoded data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import AfterValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor

from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_VALUES

SERIES = "values of a series are drawn given those that are known: take ensemble"  # why families do not accept one
MOST_WORDS = 1 << 16  # of a caption, in a run of any version


@dataclass(frozen=True)
class Slot:
    """The tokens that one position may hold: the `count` ids from `first` on, the last `ordered` of which are in order,
    as the parts of a range of numbers are. `counts`: how often each occurs in training; empty if that is not known."""

    first: int
    count: int
    ordered: int = 0
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Space:
    """The space of an encoded example.

    `tokens`: integers of shape (T,) (or (T, K) for K levels), with a vocabulary size for each level. `field`: real
    numbers of shape (C, *grid) in about [-1, 1], or of unit deviation where values have no bounds, with standard
    deviation `std` on the training split.

    A `stream` consists of documents of any length, from which windows of T tokens are cut; otherwise every example has
    exactly T tokens. Documents that are `records` (conversations) stand alone: a window holds one of them, and no token
    of context precedes it. `opening`: the token with which a document begins, where it is not the `end` of the one
    before, as in public models whose tokenizer has a token of beginning. `grid`: the raster (height, width) of tokens,
    whose last axis may be the K residual codes of a position, coarse to fine.

    Tokens of a `catalogue` are items that stand for themselves: any may follow any, and there may be very many of them.

    `slots`: of examples whose positions each hold tokens of their own, as the columns of a table do, those of each
    position; empty if any position may hold any token.

    `axes` names the axes of a field's grid: height and width of an image, frequency and time of a sound. `seconds` is
    the length of its time axis, and `longest` that of the longest item, after which the axis is padded. `periodic`:
    for each axis of a grid that closes on itself, whether it does; empty if none does. Values of a `local` field depend
    on what is known near them alone, as those of a physical state do on the state a short time before. A `coded` field
    has the latents of a public autoencoder: mirroring or turning them does not mirror or turn the image.
    """

    kind: Literal["tokens", "field"]
    shape: tuple[int, ...]
    vocab: tuple[int, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)  # begin, end, pad, ... -> id
    stream: bool = False
    grid: tuple[int, ...] = ()
    std: float = 1.0
    records: bool = False
    opening: int | None = None
    catalogue: bool = False
    slots: tuple[Slot, ...] = ()
    axes: tuple[str, ...] = ()
    periodic: tuple[bool, ...] = ()
    local: bool = False
    coded: bool = False
    seconds: float = 0.0
    longest: float = field(default=0.0, compare=False)  # seconds

    @property
    def pixels(self) -> bool:
        """Whether values are those of an image's pixels, so that fields of other sizes mean the same."""
        return self.axes == ("height", "width")

    @property
    def serial(self) -> bool:
        """Whether channels are columns of a series, and the only axis its steps."""
        return self.axes == ("step",)

    @property
    def timed(self) -> bool:
        """Whether an axis is time. Such a field is not an image and must not be mirrored."""
        return "time" in self.axes

    @property
    def context_token(self) -> int:
        """The token of context, which precedes an example: `begin`, or in a stream the `end` of what was before, unless
        documents have an `opening`."""
        return self.opening if self.opening is not None else self.special["end" if self.stream else "begin"]

    @property
    def lead(self) -> tuple[int, ...]:
        """What precedes a prompt: the token of context, but nothing precedes a record."""
        return () if self.records else (self.context_token,)

    @property
    def end_token(self) -> int | None:
        """The token that ends a sample; None where all have one length. The history of a catalogue has no end."""
        return self.special.get("end") if self.stream and not self.catalogue else None

    @property
    def filler(self) -> int | None:
        """The token that fills the window after a record which is drawn as a whole; None of other spaces."""
        return self.special.get("filler") if self.records else None

    @property
    def fixed(self) -> bool:
        """Whether all examples have as many tokens, as images have."""
        return not self.stream

    def sample_length(self, length: int) -> int:
        """The most tokens of a sample of which `length` are wanted: fixed where all examples have one length, and of a
        catalogue no more than a window has."""
        if self.fixed:
            return self.shape[0]
        return min(length, self.shape[0]) if self.catalogue else length


def _check_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > MOST_VALUES:
        raise ValueError(f"a shape of {math.prod(shape):,} numbers is too large (at most {MOST_VALUES:,})")
    return shape


Finite = Annotated[float, Field(allow_inf_nan=False)]
Mode = tuple[Finite, Annotated[float, Field(ge=0, allow_inf_nan=False)]]


def _check_modes(spectrum: tuple[tuple[Mode, ...], ...]) -> tuple[tuple[Mode, ...], ...]:
    if sum(map(len, spectrum)) > MOST_VALUES:
        raise ValueError(f"a spectrum of {sum(map(len, spectrum)):,} shells is too large (at most {MOST_VALUES:,})")
    return spectrum


Shape = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AfterValidator(_check_size)]


@dataclass(frozen=True)
class Part:
    """One named part of a condition.

    `label`: one of `classes`, (B,) int64. `number`: (B,) float32, standardised by (mean, std). `prompt`: (B, S) int64,
    the ids of the words of a caption, from `classes`; 0 is padding, 1 an unknown word. `vector`: (B, E) float32, the
    embedding of a caption. `aligned`: (B, *shape) float32 in about [-1, 1], a field on the grid of x, such as another
    image or an edge map. One that `persists` ends with the channels of x as they were before, from which x differs with
    the standard deviation `std`. Of fields on a ring, `spectrum` says so for each channel and shell of wavenumbers (see
    `afresh.engine.nets.persistence`): which share of a mode persists, and the standard deviation of the rest.
    One that is `scaled` has the deviation of each value as further channels after them instead, 0 where a value is
    known; networks are told the channels before both.

    Files of runs hold parts: as a field of a pydantic model, a part is checked against the bounds below.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", revalidate_instances="always")

    kind: Literal["label", "number", "prompt", "vector", "aligned"]
    classes: tuple[str, ...] = ()
    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    length: Annotated[int, Field(ge=0, le=MOST_WORDS)] = 0  # S of a prompt
    shape: Shape = ()  # of one sample: (E,) of a vector, (C, *grid) of an aligned field
    persists: bool = False
    spectrum: Annotated[tuple[tuple[Mode, ...], ...], AfterValidator(_check_modes)] = ()
    scaled: bool = False

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A file of an earlier version keeps its bytes, whose hash is recorded, when it is written again."""
        values: dict[str, Any] = write(self)
        return {k: v for k, v in values.items() if v or k not in ("persists", "spectrum", "scaled")}

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one sample's value."""
        return (self.length,) if self.kind == "prompt" else self.shape

    @property
    def ids(self) -> int:
        """How many ids a label or a word of a prompt can be."""
        return len(self.classes) + (2 if self.kind == "prompt" else 0)

    @property
    def dtype(self) -> torch.dtype:
        return torch.int64 if self.kind in ("label", "prompt") else torch.float32


CondSpec = Mapping[str, Part]


@dataclass(frozen=True)
class Cond:
    """The conditions, or requests, of B samples: parts by name, and whether each part is present.

    `known` holds known values of x, with `known_mask` true where they are known: a prompt, or the tokens around a hole.
    `null` keeps them. `negative`: the condition that guidance leads away from (see `negative_or_null`). `toward`:
    another condition with the same parts, and its share of each row, (B,) from 0 to 1; networks interpolate between the
    embeddings of both.
    """

    size: int
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B, ...)
    present: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B,) bool
    known: Tensor | None = None  # (B, S) tokens
    known_mask: Tensor | None = None  # (B, S) bool
    negative: Cond | None = None  # with as many rows and the same parts
    toward: tuple[Cond, Tensor] | None = None

    def negative_or_null(self) -> Cond:
        """The condition that guidance leads away from: `negative`, or the null condition. Known values stay known."""
        if self.negative is None:
            return self.null()
        return replace(self.negative, known=self.known, known_mask=self.known_mask)

    def null(self, names: Iterable[str] | None = None) -> Cond:
        """The same condition without some parts (None: without all parts)."""
        dropped = set(self.parts if names is None else names)
        present = {k: torch.zeros_like(v) if k in dropped else v for k, v in self.present.items()}
        toward = None if self.toward is None else (self.toward[0].null(names), self.toward[1])
        return replace(self, present=present, toward=toward)

    def drop(self, keep: Mapping[str, Tensor]) -> Cond:
        """Drops part `name` of row b where keep[name][b] is false."""
        toward = None if self.toward is None else (self.toward[0].drop(keep), self.toward[1])
        return replace(
            self, present={k: v & keep[k] if k in keep else v for k, v in self.present.items()}, toward=toward
        )

    def map(self, f: Callable[[Tensor], Tensor], size: int | None = None) -> Cond:
        """Applies `f` to every tensor; it returns `size` rows (None: as many as before)."""
        return Cond(
            self.size if size is None else size,
            {k: f(v) for k, v in self.parts.items()},
            {k: f(v) for k, v in self.present.items()},
            None if self.known is None else f(self.known),
            None if self.known_mask is None else f(self.known_mask),
            None if self.negative is None else self.negative.map(f, size),
            None if self.toward is None else (self.toward[0].map(f, size), f(self.toward[1])),
        )

    def select(self, rows: Tensor) -> Cond:
        """The given rows, (R,) int64."""
        return self.map(lambda v: v[rows.to(v.device)], len(rows))

    def repeat(self, n: int) -> Cond:
        """Repeats every row n times: a a b b."""
        return self.map(lambda v: v.repeat_interleave(n, 0), self.size * n)

    def to(self, device: torch.device | str) -> Cond:
        return self.map(lambda v: v.to(device))

    @staticmethod
    def cat(conds: Sequence[Cond]) -> Cond:
        """Concatenates conditions with the same parts along the rows.

        If one of them has a negative, so does the result, with null for the others; likewise with `toward`, with a
        share of zero for the others.
        """

        def join(pick: Callable[[Cond], Tensor | None]) -> Tensor | None:
            tensors = [t for t in map(pick, conds) if t is not None]
            return torch.cat(tensors) if tensors else None

        toward = None
        if shares := [c.toward[1] for c in conds if c.toward is not None]:
            each = [c.toward or (replace(c, negative=None), shares[0].new_zeros(c.size)) for c in conds]
            toward = Cond.cat([c for c, _ in each]), torch.cat([share for _, share in each])
        return Cond(
            sum(c.size for c in conds),
            {k: torch.cat([c.parts[k] for c in conds]) for k in conds[0].parts},
            {k: torch.cat([c.present[k] for c in conds]) for k in conds[0].present},
            join(lambda c: c.known),
            join(lambda c: c.known_mask),
            Cond.cat([c.negative_or_null() for c in conds]) if any(c.negative is not None for c in conds) else None,
            toward,
        )

    @staticmethod
    def unconditional(spec: CondSpec, size: int) -> Cond:
        """The condition of `size` samples in which no part is present."""
        parts = {name: torch.zeros((size, *part.row), dtype=part.dtype) for name, part in spec.items()}
        return Cond(size, parts, {k: torch.zeros(size, dtype=torch.bool) for k in parts})


@dataclass(frozen=True)
class Batch:
    """B examples for a loss.

    For tokens, x is (B, T + 1): one token of context (the one before the window, or `begin`) and the T tokens to
    predict. `index` (B,) int64 numbers the draws since the start of training. It is the key of all noise, so that the
    noise of an example depends neither on the batch size nor on the rank. `by_length`: whether the examples were chosen
    for their similar length, so that batches differ in the number of their targets.
    """

    x: Tensor
    cond: Cond
    index: Tensor
    mask: Tensor | None = None  # (B, T) bool: which targets are counted; None = all
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # win, lose, advantage, ...
    by_length: bool = False

    def map(self, f: Callable[[Tensor], Tensor], size: int | None = None) -> Batch:
        """Applies `f` to every tensor; it returns `size` rows (None: as many as before)."""
        mask = None if self.mask is None else f(self.mask)
        extras = {k: f(v) for k, v in self.extras.items()}
        return Batch(f(self.x), self.cond.map(f, size), f(self.index), mask, extras, self.by_length)

    def select(self, rows: Tensor) -> Batch:
        """The given rows, (R,) int64."""
        return self.map(lambda v: v[rows.to(v.device)], len(rows))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self.map(lambda v: v.to(device, non_blocking=non_blocking))


def evenly_spaced(count: int, most: int) -> Tensor:
    """Rows (n,) int64 of `count`: all of them, or as many as `most` at even distances, with the first and the last."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()


class Parts(Protocol):
    """A stream of tokens that is larger than memory, in parts that are made on the disk when they are first needed.

    What a part holds depends on the data alone, never on who asks when. A part that cannot be made, because a file is
    damaged, raises UserError whenever it is waited for.
    """

    def __len__(self) -> int: ...  # the number of parts
    @property
    def ready(self) -> int: ...  # how many of them are there without being made, whoever asks
    def ask(self, count: int) -> None: ...  # begin to make the first `count` parts, without waiting
    def tokens(self, part: int) -> int: ...  # of one part, which is waited for
    def read(self, part: Tensor, position: Tensor) -> Tensor: ...  # ids (B, T) at consecutive positions of parts (B,)

    # Of all parts; estimated as long as there are parts that are not made.
    @property
    def total(self) -> int: ...  # tokens
    @property
    def documents(self) -> int: ...


class Rows(Protocol):
    """All examples of a field that is larger than memory, whose x is in a file."""

    def __len__(self) -> int: ...
    @property
    def sample(self) -> Tensor: ...  # the numbers of those that are in memory
    def read(self, rows: Tensor) -> tuple[Tensor, Cond]: ...  # x (R, C, *grid) of rows (R,), and their conditions


@dataclass(frozen=True)
class Examples:
    """An encoded split, in a compact form.

    Field: x (N, C, *grid), uint8 or float; batches hold x * scale + shift. Tokens of a fixed length: x (N, T). Stream:
    x (total,), with document d at x[bounds[d] : bounds[d + 1]]. `cond` has a row for each example (for each document of
    a stream). `bytes` is the size of the raw data (UTF-8 for text). `mask` (total,) bool: which tokens of a stream of
    records are to be predicted. `parts`: all of a stream that is larger than memory, of which x, `bounds` and `cond`
    are the first part; its documents have no conditions, and `bytes` is an estimate. `rows`: all of a field that is
    larger than memory, of which x and `cond` are a sample. `mirrored` (count,) bool: which examples are mirror images
    of others; batches have it among their `extras`.
    """

    x: Tensor
    cond: Cond
    scale: float = 1.0
    shift: float = 0.0
    bounds: Tensor | None = None  # (D + 1,) int64
    bytes: int = 0
    mask: Tensor | None = None
    vary: Callable[[Batch, Rng], Batch] | None = None  # random augmentation of batches, in training only
    parts: Parts | None = None
    rows: Rows | None = None
    mirrored: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x) if self.bounds is None else len(self.bounds) - 1

    @property
    def count(self) -> int:
        """The number of examples, also of those that are not in memory; about how many, of a stream in parts."""
        if self.parts is not None:
            return self.parts.documents
        return len(self) if self.rows is None else len(self.rows)
