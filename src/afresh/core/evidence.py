"""What judges: scores, and the evidence that a metric may ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from afresh.core.data import Item
from afresh.core.rng import Rng
from afresh.core.space import Cond, CondSpec, Examples, Space


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
