"""Evaluation: scores, metrics, and the evidence from which metrics are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from afresh.core.plural import digits

if TYPE_CHECKING:
    from torch import Tensor

    from afresh.core.data import Item
    from afresh.core.item_kind import ItemKind
    from afresh.core.rng import Rng
    from afresh.core.space import Cond, CondSpec, Examples, Space

T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """A number with its interval [low, high], from n observations.

    `floor`: the value for real data compared with real data. `control`: the value of a trivial model.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    better: Literal["lower", "higher", "none"]
    floor: float | None = None
    control: float | None = None

    def row(self) -> list[str]:
        """The score in words: name, value, interval, n, which is better, floor, control."""
        interval = "-" if self.low is None or self.high is None else f"{digits(self.low)} to {digits(self.high)}"
        better = "" if self.better == "none" else self.better
        return [
            self.name,
            digits(self.value),
            interval,
            f"{self.n:,}",
            better,
            digits(self.floor),
            digits(self.control),
        ]


@dataclass(frozen=True)
class Drawn:
    """Samples and the requests for which they were drawn: x in the modality's space, and the decoded values."""

    x: Tensor
    values: Sequence[Any]
    cond: Cond


class Evidence(Protocol):
    """What a metric may use. Everything is computed once, when it is first needed.

    `train` and `heldout` are in the modality's space, so that models with different codecs are comparable.
    """

    @property
    def kind(self) -> ItemKind: ...
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
    def token_nats(self) -> Tensor | None: ...  # of each counted token of the held-out split, (N,), in its order
    @property
    def bound(self) -> bool: ...  # whether these nats are only an upper bound, minus an ELBO
    def valid(self, value: Any) -> bool: ...
    @property
    def limited(self) -> bool: ...  # whether the seconds of the measurement are limited

    def tool(self, make: Callable[[Any, Evidence], T], study: Evidence | None = None) -> T:
        """The result of `make(run, study)`, whatever else a metric needs of an `afresh.runs.run.Run`. `study`: the
        evidence with the limits under which it is computed, by default this one.

        It is computed once, when it is first needed, and shared by all metrics that name the same function.
        """
        ...


class Question(StrEnum):
    """What scores tell of a model, in the order in which a report shows it."""

    REAL = "Does it look real?"
    FOLLOWS = "Is it in the language of the data?"
    VARIED = "Is it varied?"
    OBEYS = "Does it obey?"
    COPIED = "Did it copy?"
    PREDICTS = "Does it predict what it has not seen?"
    OTHER = "Other numbers"


@dataclass(frozen=True)
class ScoreWords:
    """How a score is called, what it means, and which question it answers. `said`: how a verdict says it, of {plural}
    with the value as {share} or as {count}; empty if it does not."""

    name: str
    meaning: str
    question: Question
    said: str = ""


Word = Literal[
    "noise",
    "blurred",
    "recognisable",
    "good",
    "memorised",
    "collapsed",
    "unchanged",
    "cannot tell",
    "not measured",
]
Judgement = tuple[Word, str]  # and why, as a sentence


@dataclass(frozen=True)
class Metric:
    """A metric: whether it applies to items of a kind in a space with conditions, and how it is computed.

    `brief`: whether it is part of a measurement whose seconds are over, because the verdict needs it. `words`: those of
    its scores, by their names up to a slash; `beside`: how a name goes on that has a slash, such as {"lzma": "of
    lzma"}. `judge`: the verdict on a model from all its scores by name, and from what its items are called in the
    plural; None where scores that it needs are not there. It goes by the values alone: where other values within their
    intervals give another word, the verdict says that the scores do not decide (`afresh.engine.evaluation.doubt`).
    """

    name: str
    applies: Callable[[ItemKind, Space, CondSpec], str | None]  # None, or the reason why it does not
    compute: Callable[[Evidence], list[Score]]
    brief: bool = False
    words: Mapping[str, ScoreWords] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    judge: Callable[[Mapping[str, Score], str], Judgement | None] | None = None
