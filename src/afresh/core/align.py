"""What is steered after training: policies, aligners, and what an aligner learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afresh.core.model import Family, Objective, State
from afresh.core.policy import Modules, Policy
from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, Space


@dataclass(frozen=True)
class Votes:
    """Pairs as they are learnt from, encoded: N preferred examples and N others for the same requests; `tied` (N,) bool
    is true where neither was. Texts are rows of tokens with a mask, as the policy's `score` takes them."""

    win: Batch
    lose: Batch
    tied: Tensor

    def __len__(self) -> int:
        return len(self.tied)


@dataclass(frozen=True)
class AlignTarget:
    """The model that is steered, how it samples, and the reward as a differentiable function of x (B, *shape) -> (B,),
    where there is one."""

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
    """What an aligner's batches are made of.

    `modules` learn, `reference` are what they began as. `requests(first, n)` are the conditions of requests number
    first ... first + n - 1, the same ones each time, and `examples(first, n)` examples of the data, as samples would
    be, with theirs. `reward(x, cond)` gives (B,) float64 of samples in the family's space. `rng` is for samples,
    `noise` is what the loop gives to losses. `state` is the learner's.
    """

    modules: Modules
    reference: Modules
    rng: Rng
    noise: Rng
    requests: Callable[[int, int], Cond]
    state: Callable[[], State]
    examples: Callable[[int, int], tuple[Tensor, Cond]] | None = None
    reward: Callable[[Tensor, Cond], Tensor] | None = None
    votes: Votes | None = None

    @property
    def device(self) -> torch.device:
        return next(p for m in self.modules.values() for p in m.parameters()).device


@dataclass(frozen=True)
class Aligner:
    """A way to steer a model. One line of its file's ALIGNERS each.

    `needs` names capabilities of the Policy. `feeds`: what it learns from. `objective` (config, AlignTarget) and
    `batches` (config, AlignContext) -> (first draw, number of draws) -> Batch go into the one training loop.
    `reuse` steps in a row learn from one rollout and are not parted by a checkpoint. `modules` are what it learns
    beside the family's own, from (config, family's modules). `first` is its state before the first step.
    """

    name: str
    about: str
    config: type  # pydantic model
    needs: tuple[str, ...]
    feeds: Literal["reward", "gradient", "preferences"]
    objective: Callable[[Any, AlignTarget], Objective]
    batches: Callable[[Any, AlignContext], Callable[[int, int], Batch]]
    reuse: Callable[[Any], int] = lambda config: 1
    group: Callable[[Any], int] = lambda config: 1  # draws that belong together: a batch holds whole groups
    modules: Callable[[Any, Modules], Mapping[str, nn.Module]] = lambda config, modules: {}
    first: Callable[[Any], State] = lambda config: {}
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig
