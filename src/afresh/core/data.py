"""Items, the modalities that read them, and the encoders and codecs that turn them into tensors and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from afresh.core.item_kind import ItemKind, Sound

if TYPE_CHECKING:
    from torch import Tensor

    from afresh.core.space import CondSpec, Examples, Space


class ValueFile(Protocol):
    """Values in a file, each of which is read when it is asked for."""

    def value(self, number: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """What stands for the value of an item that is larger than memory with the others: where it is, and its digest
    (`ItemKind.digest`), so that it need not be read to be told from others."""

    file: ValueFile
    number: int
    digest: str

    def read(self) -> Any:
        return self.file.value(self.number)


@dataclass(frozen=True)
class Item:
    """One decoded example. What `value` is depends on its kind: a str, a uint8 array (H, W, C), a Sound, ... Between
    reading and encoding it may be a `Stored`."""

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


class Omission(str):
    """A note on data that says that something of it is not learnt, or not as it was given."""


def about(name: str, note: str) -> str:
    """A note with the name of what it is about before it; an Omission stays one."""
    return type(note)(f"{name}: {note}")


class LargeCorpus(Protocol):
    """Data that is larger than memory, sampled by the items of a `Corpus`."""

    @property
    def identity(self) -> str: ...  # of the files, in hexadecimal
    @property
    def held_out(self) -> float: ...  # the share of the items that is held out, of which only the sample's are used

    # All items but those that are held out: in `heldout`, or with a hash of their content below `limit`.
    def examples(self, encoder: Encoder, heldout: Sequence[Item], limit: float) -> Examples: ...


@dataclass
class Corpus:
    """The result of reading a path. Every input that is not used has an entry in `refused` or an Omission in `notes`.

    `large`: all of the data, if it is larger than memory and `items` are a sample.
    """

    items: list[Item]
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)  # number of items by the change made to them
    settled: Mapping[str, Any] = field(default_factory=dict)  # values of options that were chosen from the data
    large: LargeCorpus | None = None


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
    which found most is chosen, as the most specific, and the scores count among equals. `settings`: options of the data
    without which the modality cannot read the path, {"time": "YEAR"}.
    """

    score: float
    reason: str
    unsupported: Unsupported | None = None
    columns: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


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
    @property
    def abilities(self) -> Abilities: ...

    def encode(self, items: Sequence[Item]) -> Examples: ...
    def decode(self, x: Tensor) -> list[Any]: ...
    def valid(self, value: Any) -> bool: ...
    def hear(self, value: Any) -> Sound | None: ...  # the value as audio; None if it has no audio
    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]: ...
    def save(self, folder: Path) -> None: ...


Prompt = str | tuple[int, ...]  # a text, or the ids of its tokens


class Prompts(Protocol):
    """How an encoder reads the prompt of a request.

    contained: whether samples contain their prompt (a molecule its scaffold) instead of following it. writes: whether
    samples are texts, which can be shown while they are written and ended at a string. converses: whether a prompt is
    a message, which a sample answers. reply_length: the tokens of one reply, such as an item of a catalogue; None if
    samples have any length.
    """

    @property
    def contained(self) -> bool: ...
    @property
    def writes(self) -> bool: ...
    @property
    def converses(self) -> bool: ...
    @property
    def reply_length(self) -> int | None: ...

    # The known tokens (length,) of `count` samples, without the `end` of an item. `turns`: of a conversation in which
    # the prompt is to be answered; None to go on from it. `strength`: the share of the prompt, an item, that is drawn
    # again; None for a part that is contained. The seed is that of the first sample.
    def beginnings(
        self,
        prompt: Prompt,
        count: int = 1,
        *,
        turns: tuple[tuple[str, str], ...] | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> list[Tensor]: ...

    # The tokens (length,) of a text with holes, [[N]] for N tokens, whose ids are -1. Raises UserError.
    def with_holes(self, text: str, space: Space) -> Tensor: ...
    def prompt_text(self, ids: Tensor) -> str: ...  # the prompt that known tokens (length,) stand for
    def prompt_in(self, ids: Tensor) -> Tensor: ...  # the prompt in a stretch of training tokens that was cut anywhere
    def keeps(self, value: Any, prompt: str) -> bool: ...  # whether an item has the part that it was to contain


class Texts(Protocol):
    """An encoder of documents, whose tokens each spell a piece of the text."""

    @property
    def tokenizer(self) -> Any: ...  # an afresh.data.text.tokenizer.Tokenizer
    @property
    def languages(self) -> tuple[str, ...]: ...  # of source code; none for prose
    @property
    def fim_rate(self) -> float: ...  # the share of documents that are learnt as fill-in-the-middle


class Tunable(Protocol):
    """An encoder that changes when a model is tuned on other data, such as one whose vocabulary grows."""

    @property
    def low_rank(self) -> bool: ...  # whether an adapter learns what is new, which it cannot if that is rows of weights

    # The encoder for these items, which were read with the `options` of their modality, of a model that attends to
    # `context` tokens.
    def encoder_for(self, items: Sequence[Item], options: Any, context: int) -> Encoder: ...

    # For each token of this encoder, the tokens of `base` whose rows of weights it begins with the mean of; none to
    # begin with the mean of all.
    def first_rows(self, base: Encoder) -> Sequence[Sequence[int]]: ...


class Recombines(Protocol):
    """An encoder that makes new items of known ones, in ways that suit them better than exchanging tokens."""

    # One item for each pair of which one can be made; the same ones for the same seed.
    def offspring(self, pairs: Sequence[tuple[Any, Any]], seed: int) -> list[Any]: ...


@dataclass(frozen=True)
class Abilities:
    """What an encoder can do besides encoding and decoding; None for what it cannot. audible: whether items that are
    texts can be heard (`Encoder.hear`). samples: how many a measurement draws where its seconds allow, if items are so
    small and so quickly made that many tell more; 0 for the usual number (`afresh.verbs.measuring.measure_run`).
    family: the family that suits them, if it is not the usual one of their space. notation: the constraint
    (`afresh.engine.sampling.constraint.Constraint`) of what follows the tokens of a prompt, where items have a grammar
    of their own. calibrate: what samples of a run (`afresh.runs.run.Run`) need is fitted to its held-out items after
    training, and written to its folder `fitted`. pictures: what a page shows of one item instead of its preview:
    (title, pixels (H, W, 3)) each, and lines over logarithmic axes, as numbers by name, of which `step` are the
    places."""

    prompts: Prompts | None = None
    texts: Texts | None = None
    tunable: Tunable | None = None
    recombines: Recombines | None = None
    audible: bool = False
    samples: int = 0
    family: str = ""
    notation: Callable[[Sequence[int]], Any] | None = None
    calibrate: Callable[[Any, Sequence[Item]], None] | None = None
    pictures: Callable[[Any], tuple[Sequence[tuple[str, Any]], Mapping[str, Sequence[float]]]] | None = None


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
