"""Where examples come from: items, modalities that read them, encoders and codecs that change their space."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from afresh.core.space import CondSpec, Examples, Space


class UserError(Exception):
    """Bad usage or input: says what was given, what is accepted and what to do next. Exit code 2."""


@dataclass(frozen=True, eq=False)
class Sound:
    """samples (T, C), a NumPy array of float32 in [-1, 1]; rate in samples a second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def digest(self) -> str:
        """SHA-256 of the content."""
        head = repr((self.rate, self.samples.shape, str(self.samples.dtype)))
        found = hashlib.sha256(head.encode())
        x = self.samples
        found.update(x if x.flags.c_contiguous else x.tobytes())  # hours are not copied
        return found.hexdigest()


@dataclass(frozen=True)
class Item:
    """One decoded example: a str (text, code), a uint8 array (H, W, C) (a picture) or a Sound."""

    value: Any
    source: str = ""  # where it came from, for messages
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    caption: str | None = None
    split: str | None = None  # "train" or "validation" when the data itself says so
    turns: tuple[tuple[str, str], ...] = ()  # of a conversation: (system, user or assistant; text); value shows it
    images: Mapping[str, Any] = field(default_factory=dict)  # pictures it is made from: arrays like value, or a file
    group: str | None = None  # items of a group (parts of one recording, of one speaker) stay on one side of the split

    def targets(self) -> list[Any]:
        """The value, or of a conversation what the assistant says."""
        return [text for role, text in self.turns if role == "assistant"] if self.turns else [self.value]

    def digest(self) -> str:
        """SHA-256 of the content alone: decides the split and finds exact duplicates."""
        if isinstance(self.value, str):
            return hashlib.sha256(self.value.encode("utf-8", "surrogatepass")).hexdigest()
        if isinstance(self.value, Sound):
            return self.value.digest()
        head = repr((self.value.shape, str(self.value.dtype)))
        return hashlib.sha256(head.encode() + self.value.tobytes()).hexdigest()


@dataclass(frozen=True)
class Refused:
    """One input that was not used, and why. `damaged`: it was meant to be, and cannot be read."""

    source: str
    reason: str
    damaged: bool = field(default=False, compare=False)


@dataclass
class Corpus:
    """What reading a path gave. Nothing is dropped without a line in `refused` or `notes`."""

    items: list[Item]
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)  # what reading did to how many items, by a name for it
    settled: Mapping[str, Any] = field(default_factory=dict)  # options that reading chose from all of the data


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
    def hear(self, value: Any) -> Sound | None: ...  # what it sounds like; None where it is nothing to be heard
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
    @property
    def factor(self) -> int: ...  # cells of the source along each axis, padded at its end, that a place stands for

    def encode(self, examples: Examples) -> Examples: ...
    def decode(self, x: Tensor) -> Tensor: ...
    def save(self, folder: Path) -> None: ...
