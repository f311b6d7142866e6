"""The waist: the few nouns through which data, networks, objectives and controls meet.

Families never see text or pictures, modalities never see losses, controls see neither. Everything a
plug-in may know about the rest of the program is in this file, and this file knows nothing but torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from afresh.rng import Rng


class UserError(Exception):
    """Bad usage or input: says what was given, what is accepted and what to do next. Exit code 2."""


# --------------------------------------------------------------------------- one example, encoded


@dataclass(frozen=True)
class Space:
    """What one example is once encoded.

    `tokens`: integers of shape (T,) (or (T, K): K levels), one vocabulary size a level. `field`: real numbers of shape
    (C, *grid) in about [-1, 1], whose standard deviation on the training split is `std`. A `stream` holds documents of
    any length from which windows of T tokens are cut; else every example has exactly T. `grid`: tokens lie on a raster,
    (height, width). Documents that are `records` (conversations) stand alone: no window holds two, none is preceded.
    """

    kind: Literal["tokens", "field"]
    shape: tuple[int, ...]
    vocab: tuple[int, ...] = ()
    special: Mapping[str, int] = field(default_factory=dict)  # begin, end, pad, ... -> id
    stream: bool = False
    grid: tuple[int, ...] = ()
    std: float = 1.0
    records: bool = False


@dataclass(frozen=True)
class Part:
    """One named way to say what a sample should be.

    `label`: one of `classes`, a (B,) int64. `number`: (B,) float32, standardised by (mean, std).
    `prompt`: (B, S) int64 ids of the words of a caption, from `classes`; 0 is padding, 1 an unknown word.
    """

    kind: Literal["label", "number", "prompt"]
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    length: int = 0  # S of a prompt


CondSpec = Mapping[str, Part]


@dataclass(frozen=True)
class Cond:
    """What each of B samples is asked to be: parts by name, and whether each part is present.

    `given` holds known values of x with `given_mask` true where they are known: a prefix of tokens, the
    rim of a hole. It is never nulled by `null()` unless it is named.
    """

    size: int
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B, ...)
    present: Mapping[str, Tensor] = field(default_factory=dict)  # name -> (B,) bool
    given: Tensor | None = None  # (B, *prefix of x's shape)
    given_mask: Tensor | None = None  # like given, bool

    def null(self, names: Iterable[str] | None = None) -> Cond:
        """The same request with some parts (all, when `names` is None) left out."""
        gone = set(self.parts if names is None else names)
        present = {k: torch.zeros_like(v) if k in gone else v for k, v in self.present.items()}
        if "given" in gone:
            return replace(self, present=present, given=None, given_mask=None)
        return replace(self, present=present)

    def drop(self, keep: Mapping[str, Tensor]) -> Cond:
        """Leave out part `name` of row b where keep[name][b] is false."""
        return replace(self, present={k: v & keep[k] if k in keep else v for k, v in self.present.items()})

    def map(self, f: Callable[[Tensor], Tensor], size: int | None = None) -> Cond:
        """Apply `f` to every tensor along its batch dimension."""
        return Cond(
            self.size if size is None else size,
            {k: f(v) for k, v in self.parts.items()},
            {k: f(v) for k, v in self.present.items()},
            None if self.given is None else f(self.given),
            None if self.given_mask is None else f(self.given_mask),
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
        """Stack requests with the same parts, one after the other."""

        def join(pick: Callable[[Cond], Tensor | None]) -> Tensor | None:
            found = [t for t in map(pick, conds) if t is not None]
            return torch.cat(found) if found else None

        return Cond(
            sum(c.size for c in conds),
            {k: torch.cat([c.parts[k] for c in conds]) for k in conds[0].parts},
            {k: torch.cat([c.present[k] for c in conds]) for k in conds[0].present},
            join(lambda c: c.given),
            join(lambda c: c.given_mask),
        )

    @staticmethod
    def nothing(spec: CondSpec, size: int) -> Cond:
        """A request for `size` samples that names no part: what guidance steers away from."""
        parts: dict[str, Tensor] = {}
        for name, part in spec.items():
            shape = (size, part.length) if part.kind == "prompt" else (size,)
            parts[name] = torch.zeros(shape, dtype=torch.float32 if part.kind == "number" else torch.int64)
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


# --------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Item:
    """One decoded example: a str (text, code) or a uint8 array (H, W, C) (a picture)."""

    value: Any
    source: str = ""  # where it came from, for messages
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    caption: str | None = None
    split: str | None = None  # "train" or "validation" when the data itself says so
    turns: tuple[tuple[str, str], ...] = ()  # of a conversation: (system, user or assistant; text); value shows it

    def learnt(self) -> list[Any]:
        """The value, or of a conversation what the assistant says."""
        return [text for role, text in self.turns if role == "assistant"] if self.turns else [self.value]

    def digest(self) -> str:
        """SHA-256 of the content alone: decides the split and finds exact duplicates."""
        if isinstance(self.value, str):
            return hashlib.sha256(self.value.encode("utf-8", "surrogatepass")).hexdigest()
        head = repr((self.value.shape, str(self.value.dtype)))
        return hashlib.sha256(head.encode() + self.value.tobytes()).hexdigest()


@dataclass(frozen=True)
class Refused:
    """One input that was not used, and why."""

    source: str
    reason: str


@dataclass
class Corpus:
    """What reading a path gave. Nothing is dropped without a line in `refused` or `notes`."""

    items: list[Item]
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sniff:
    """How sure a modality is that a path is its own: 0 (not at all) to 1 (certain), and why."""

    score: float
    reason: str


class Encoder(Protocol):
    """A modality fitted to a training split: its space, and the way there and back."""

    @property
    def space(self) -> Space: ...
    @property
    def conds(self) -> CondSpec: ...
    @property
    def notes(self) -> Sequence[str]: ...  # what fitting chose, cut or left out, for the user
    @property
    def settled(self) -> Mapping[str, Any]: ...  # options that were chosen from the data: other data is read so too

    def encode(self, items: Sequence[Item]) -> Examples: ...
    def decode(self, x: Tensor) -> list[Any]: ...
    def valid(self, value: Any) -> bool: ...
    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]: ...
    def save(self, folder: Path) -> None: ...


class Modality(Protocol):
    """Reads a kind of data. `options` is the modality's own frozen pydantic model."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> type: ...

    def sniff(self, path: Path) -> Sniff: ...
    def read(self, path: Path, options: Any) -> Corpus: ...
    def fit(self, items: Sequence[Item], options: Any) -> Encoder: ...
    def load(self, folder: Path) -> Encoder: ...


class Codec(Protocol):
    """A change of space: any family over the codec's target is a family over its source."""

    @property
    def source(self) -> Space: ...
    @property
    def target(self) -> Space: ...

    def encode(self, examples: Examples) -> Examples: ...
    def decode(self, x: Tensor) -> Tensor: ...
    def save(self, folder: Path) -> None: ...


# --------------------------------------------------------------------------- models

Modules = Mapping[str, nn.Module]
State = dict[str, Tensor]  # what adapts while training; checkpointed
Loss = tuple[Tensor, float, dict[str, Tensor]]  # sum over examples, weight, sums of metrics


class Objective(Protocol):
    """What training minimises, as a sum and its weight so that accumulation stays exact.

    `players` maps each player, in order of play, to the names of the modules it moves; `averaged` names
    the modules worth an exponential moving average: those that sampling uses.
    """

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def averaged(self) -> tuple[str, ...]: ...

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss: ...
    def update(self, state: State, metrics: Mapping[str, float]) -> State: ...


# (x, t, cond, state) -> (prediction, state): a velocity; for tokens the logits of what follows the first t[b] (None:
# all) of each row. `state` is None at first, or a key/value cache with select(rows) and restart(rows).
Predict = Callable[[Tensor, Any, Cond, Any], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Family:
    """A kind of generative model. One of these a file, one line in the catalog."""

    name: str
    accepts: Callable[[Space], str | None]  # None, or the reason why not
    config: type  # pydantic model of the network and objective
    sizes: Callable[[Space], Sequence[Any]]  # configs from small to large, for the planner
    appetite: Callable[[int, Space], int]  # examples that a net of so many parameters should see to be worth it
    batch: Callable[[int, Space], int]  # examples a step, for a run over so many examples
    build: Callable[[Any, Space, CondSpec], dict[str, nn.Module]]
    objective: Callable[[Any, Space], Objective]
    settings: type  # pydantic model of what sampling accepts
    sample: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor]
    null_rate: float = 0.1  # how often a condition is left out in training; 0 = guidance impossible
    guided: bool = True  # whether a gain of guidance was measured (tests/matrix.py)
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig that this family sets
    regime: Callable[[float, int, int], Mapping[str, Any]] | None = None  # (epochs, steps, examples) -> TrainConfig
    regions: Callable[[Modules, str], Sequence[nn.Module]] | None = None  # what torch.compile may take on a device
    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None  # (B,) nats, higher = likelier
    bound: bool = False  # whether the score of tokens is only a lower bound of their log-likelihood
    predict: Callable[[Modules, Space], Predict] | None = None  # of the next token, with a key/value cache
    fills: bool = False  # whether cond.given may have holes anywhere: unknown places before known ones


# --------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Score:
    """One number with its interval. `floor`: real against real; `control`: a trivial model's value."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    better: Literal["lower", "higher", "none"]
    floor: float | None = None
    control: float | None = None


@dataclass(frozen=True)
class Drawn:
    """Samples with the requests they answered: x in the modality's space, and the values it decodes to."""

    x: Tensor
    values: Sequence[Any]
    cond: Cond


class Evidence(Protocol):
    """What a metric may ask for. Everything is computed when first asked for, and once.

    `train` and `heldout` are in the modality's own space: models behind different codecs are judged alike.
    """

    @property
    def space(self) -> Space: ...
    @property
    def conds(self) -> CondSpec: ...
    @property
    def train(self) -> Examples: ...
    @property
    def heldout(self) -> Examples: ...
    @property
    def train_items(self) -> Sequence[Item]: ...
    @property
    def heldout_items(self) -> Sequence[Item]: ...
    @property
    def rng(self) -> Rng: ...

    def samples(self, n: int) -> Drawn: ...  # conditions drawn as in the training split
    def likelihood(self) -> tuple[Tensor, Tensor] | None: ...  # nats and tokens (W,) of each held-out window
    @property
    def bound(self) -> bool: ...  # whether these nats are only an upper bound (minus an ELBO)
    def valid(self, value: Any) -> bool: ...
    def complete(self, holes: Sequence[tuple[str, str, str]]) -> list[str] | None: ...  # (before, after, file's name)


@dataclass(frozen=True)
class Metric:
    """A measurement: whether it applies to a space and its conditions, and how it is made."""

    name: str
    applies: Callable[[Space, CondSpec], str | None]  # None, or the reason why not
    compute: Callable[[Evidence], list[Score]]
