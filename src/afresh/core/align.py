"""Alignment methods (aligners), and what they learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from afresh.core.item_kind import ItemKind
from afresh.core.model import Family, Modules, Objective, Policy, State
from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, Space


@dataclass(frozen=True)
class Votes:
    """Encoded pairs: N preferred examples and N others for the same requests.

    `tied` (N,) bool: true where neither was preferred. `weight` (N,): how much each counts, 1 on average. Texts are
    rows of tokens with a mask, as in `Policy.score`.
    """

    win: Batch
    lose: Batch
    tied: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.tied)

    def select(self, rows: Tensor) -> Votes:
        """Some of the votes, whose weights are 1 on average again."""
        weight = self.weight[rows]
        weight = weight / weight.mean() if len(rows) else weight
        return Votes(self.win.select(rows), self.lose.select(rows), self.tied[rows], weight)


class Memory(Protocol):
    """What a reward was asked: each item once, in the order in which the answers came."""

    @property
    def items(self) -> Sequence[Any]: ...
    @property
    def rewards(self) -> Sequence[float]: ...
    @property
    def left(self) -> int: ...  # calls of the reward that may still be made

    def begin(self, step: int) -> None: ...  # what was asked from this step on is forgotten, but not asked again
    def knows(self, item: Any) -> bool: ...
    def ask(self, items: Sequence[Any], step: int) -> None: ...  # of those that are new, as many as may be asked


@dataclass(frozen=True)
class SearchSpace:
    """The items behind the samples, for methods that propose items themselves.

    `examples` (first, n) returns training items, drawn with replacement. `decode` converts samples to items, of which
    those that are not `valid` are never asked. `batch` (items, seed) makes rows for `Policy.steps` of items, written in
    one of their ways, and returns the positions of those that can be expressed. `offspring` (pairs, seed) makes new
    items of pairs of items, at most one of each. `memory` (calls) holds what the reward was asked, at most so many
    items.
    """

    kind: ItemKind
    examples: Callable[[int, int], Sequence[Any]]
    decode: Callable[[Tensor], Sequence[Any]]
    valid: Callable[[Any], bool]
    batch: Callable[[Sequence[Any], int], tuple[Batch, list[int]]]
    offspring: Callable[[Sequence[tuple[Any, Any]], int], Sequence[Any]]
    memory: Callable[[int], Memory]


@dataclass(frozen=True)
class AlignTarget:
    """The model that is aligned and the settings of its sampling.

    `on_field`: the reward as a differentiable function of x (B, *shape) to (B,), if there is one.
    """

    family: Family
    config: Any
    space: Space
    settings: Any
    on_field: Callable[[Tensor], Tensor] | None = None

    @property
    def policy(self) -> Policy:
        assert self.family.policy is not None
        return self.family.policy


@dataclass(frozen=True, kw_only=True)
class AlignContext(AlignTarget):
    """What the batches of an aligner are computed from.

    `modules` are trained, and `reference` are copies of them from before alignment. `requests(first, n)` returns the
    conditions of the requests first ... first + n - 1, always the same ones; `examples(first, n)` returns examples of
    the data, in the form of samples, and their conditions. `reward(x, cond)` returns (B,) float64 for samples in the
    family's space; `search` has the items themselves. `rng` is for samples, and `noise` is the one that losses receive.
    `state` returns the state of training, and `steps` the number of steps that are planned (0: not known).
    """

    modules: Modules
    reference: Modules
    rng: Rng
    noise: Rng
    requests: Callable[[int, int], Cond]
    state: Callable[[], State]
    steps: Callable[[], int] = lambda: 0
    examples: Callable[[int, int], tuple[Tensor, Cond]] | None = None
    reward: Callable[[Tensor, Cond], Tensor] | None = None
    votes: Votes | None = None
    search: SearchSpace | None = None

    def share(self, step: int) -> float:
        """The share of training that is over after `step` steps; 1 if the number of steps is not known."""
        return step / self.steps() if self.steps() else 1.0

    @property
    def device(self) -> torch.device:
        return next(p for m in self.modules.values() for p in m.parameters()).device


@dataclass(frozen=True)
class Aligner:
    """An alignment method. Each is an entry of ALIGNERS in its file.

    `needs` names capabilities of the Policy. `feeds`: what the method learns from. `objective` (config, AlignTarget)
    and `batches` (config, AlignContext) -> (first draw, number of draws) -> Batch are used by the training loop.
    `reuse` consecutive steps learn from one rollout, and checkpoints are not written between them. `modules` (config,
    modules of the family) returns further modules that are trained. `first` is the initial state. A method that
    `searches` asks the reward through a memory, which counts the calls: nothing else may ask it.
    """

    name: str
    about: str
    config: type  # pydantic model
    needs: tuple[str, ...]
    feeds: Literal["reward", "gradient", "preferences"]
    objective: Callable[[Any, AlignTarget], Objective]
    batches: Callable[[Any, AlignContext], Callable[[int, int], Batch]]
    reuse: Callable[[Any], int] = lambda config: 1
    group: Callable[[Any], int] = lambda config: 1  # draws of a group; batches contain whole groups
    modules: Callable[[Any, Modules], Mapping[str, nn.Module]] = lambda config, modules: {}
    first: Callable[[Any], State] = lambda config: {}
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig
    searches: bool = False
