"""Items, the modalities that read them, and the encoders and codecs that turn them into tensors and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from afresh.core.item_kind import ItemKind
from afresh.core.sound import Sound

if TYPE_CHECKING:
    from torch import Tensor

    from afresh.core.space import CondSpec, Examples, Space


@dataclass(frozen=True)
class Item:
    """One decoded example. What `value` is depends on its kind: a str, a uint8 array (H, W, C), a Sound, ..."""

    value: Any
    source: str = ""  # file or row that it was read from, for messages
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    caption: str | None = None
    split: str | None = None  # "train" or "validation" if the data defines its own split
    turns: tuple[tuple[str, str], ...] = ()  # conversation as (role, text) pairs; `value` is the same as one text
    images: Mapping[str, Any] = field(default_factory=dict)  # conditioning images: arrays like `value`, or paths
    group: str | None = None  # items of one group (one recording, one speaker) stay on the same side of the split

    def targets(self) -> list[Any]:
        """What a model learns to predict: the assistant's messages of a conversation, otherwise the value."""
        return [text for role, text in self.turns if role == "assistant"] if self.turns else [self.value]


@dataclass(frozen=True)
class Refused:
    """One input that was not used, with the reason. `damaged` is True if it could not be read."""

    source: str
    reason: str
    damaged: bool = field(default=False, compare=False)


@dataclass
class Corpus:
    """The result of reading a path. Every input that is not used has an entry in `refused` or a line in `notes`."""

    items: list[Item]
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)  # number of items by the change made to them
    settled: Mapping[str, Any] = field(default_factory=dict)  # values of options that were chosen from the data


@dataclass(frozen=True)
class Unsupported:
    """A kind of data that no modality of this package learns: its name in the plural, what it was recognised by, and
    what a person can do, as a sentence without its full stop."""

    kind: str
    seen: str
    advice: str


@dataclass(frozen=True)
class Sniff:
    """How certain a modality is that it can read a path, from 0 (cannot) to 1 (certain), and why.

    `unsupported` is set by a modality that could read the data, but knows that it would learn nothing useful from it.
    `columns`: of a table, how many columns that it needs it found. Several modalities may be able to read one: that
    which found most is chosen, as the most specific, and the scores count among equals.
    """

    score: float
    reason: str
    unsupported: Unsupported | None = None
    columns: int = 0


class Encoder(Protocol):
    """A modality fitted to a training split: converts items to tensors of `space` and back."""

    @property
    def kind(self) -> ItemKind: ...
    @property
    def space(self) -> Space: ...
    @property
    def conds(self) -> CondSpec: ...
    @property
    def notes(self) -> Sequence[str]: ...  # what fitting chose, truncated or omitted, for the user
    @property
    def settled(self) -> Mapping[str, Any]: ...  # options chosen from the data, to read other data in the same way

    def encode(self, items: Sequence[Item]) -> Examples: ...
    def decode(self, x: Tensor) -> list[Any]: ...
    def valid(self, value: Any) -> bool: ...
    def hear(self, value: Any) -> Sound | None: ...  # the value as audio; None if it has no audio
    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]: ...
    def save(self, folder: Path) -> None: ...


@runtime_checkable
class BuildsOn(Protocol):
    """An encoder whose items are built on a prompt, which is part of them (a scaffold of a molecule), rather than
    continued after it, as texts are."""

    # The known tokens of `count` samples, from the number of the first sample on: of a part, or, with a strength from 0
    # to 1, of an item of which that share is drawn again.
    def beginnings(self, prompt: str, strength: float | None, count: int, seed: int) -> list[Tensor]: ...
    def with_holes(self, pieces: Sequence[str | int]) -> Tensor: ...  # texts, and lengths of holes, whose ids are -1
    def keeps(self, value: Any, prompt: str) -> bool: ...  # whether an item has the part


@runtime_checkable
class Recombines(Protocol):
    """An encoder that makes new items of known ones, in ways that suit them better than exchanging tokens."""

    # One item for each pair of which one can be made; the same ones for the same seed.
    def offspring(self, pairs: Sequence[tuple[Any, Any]], seed: int) -> list[Any]: ...


# (path, the modality that was asked for or None) -> a folder or file that the readers of modalities know; None if the
# source does not know the path. Data is written aside once, under a name made of its content, because a run that is
# resumed reads it again (afresh.data.imported).
Source = Callable[[Path, str | None], Path | None]


class Modality(Protocol):
    """Reads one kind of data. `options` is a frozen pydantic model of the modality's own."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> ItemKind: ...
    @property
    def options(self) -> type: ...

    def sniff(self, path: Path) -> Sniff: ...
    def read(self, path: Path, options: Any) -> Corpus: ...
    def fit(self, items: Sequence[Item], options: Any) -> Encoder: ...
    def load(self, folder: Path) -> Encoder: ...


@runtime_checkable
class Extendable(Protocol):
    """An encoder whose vocabulary grows when a model is tuned on other data.

    `extended` returns the encoder for these items too. `first_rows` is asked of it: for each of its tokens, the tokens
    of `base` whose rows of weights it begins with the mean of; none to begin with the mean of all.
    """

    def extended(self, items: Sequence[Item]) -> Encoder: ...
    def first_rows(self, base: Encoder) -> Sequence[Sequence[int]]: ...


class Codec(Protocol):
    """Encodes examples of `source` in `target` and back, so that a family over `target` is also one over `source`."""

    @property
    def source(self) -> Space: ...
    @property
    def target(self) -> Space: ...
    @property
    def factor(self) -> int: ...  # cells of the source per cell of the target, along each axis (padded at its end)

    def encode(self, examples: Examples) -> Examples: ...
    def decode(self, x: Tensor) -> Tensor: ...
    def save(self, folder: Path) -> None: ...
