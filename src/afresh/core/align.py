"""What is steered after training: policies, aligners, and what an aligner learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, Space

if TYPE_CHECKING:
    from afresh.core.model import Family, Modules, Objective, State


@dataclass(frozen=True)
class Rollout:
    """B samples and how they came about: x (B, ...) as the family's `sample` gives them, and a batch from which `steps`
    tells how likely each step was. `logp` (B, T), of the sampler itself; where its mask is false nothing counts."""

    x: Tensor
    batch: Batch
    logp: Tensor


@dataclass(frozen=True)
class Steps:
    """Log-probabilities (B, T) of the steps taken, nats, with gradient; which of them count (B, T) bool; the entropy
    of each step's distribution (B, T); what a critic may look at (B, T, W), without gradient."""

    logp: Tensor
    mask: Tensor
    entropy: Tensor
    features: Tensor


@dataclass(frozen=True)
class Policy:
    """What makes a family alignable: capabilities, None where the family lacks one. Aligners say which they need.

    All take (modules, config, space) first. A token is a step; so is a stretch of denoising.

    rollout (cond, rng, index, settings) -> Rollout. Raises UserError for settings that are not the policy's own.
    steps (batch) -> Steps.
    score (batch, rng) -> (B,): a log-likelihood, a lower bound of one, or minus a matching error in nats; noise is
        keyed by batch.index, so that two models are compared on the same.
    draw (cond, rng, index, settings) -> x (B, *shape), differentiable in the weights.
    denoise (batch, rng) -> what is predicted of noised examples and what it should be, both (B, *shape); times and
        noise are keyed by batch.index.
    fits: whether learning its own best samples as data moves it and keeps their quality, which was measured
        (tests/matrix_align.py).
    moves: names of the modules that learn.
    """

    moves: tuple[str, ...]
    rollout: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Rollout] | None = None
    steps: Callable[[Modules, Any, Space, Batch], Steps] | None = None
    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None
    draw: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor] | None = None
    denoise: Callable[[Modules, Any, Space, Batch, Rng], tuple[Tensor, Tensor]] | None = None
    fits: bool = False

    def has(self) -> tuple[str, ...]:
        """The names of the capabilities that are there."""
        every = {
            "rollout": self.rollout,
            "steps": self.steps,
            "score": self.score,
            "draw": self.draw,
            "denoise": self.denoise,
            "fits": self.fits or None,
        }
        return tuple(k for k, v in every.items() if v is not None)


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
class Steered:
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
class World(Steered):
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

    `needs` names capabilities of the Policy. `feeds`: what it learns from. `objective` (config, Steered) and
    `batches` (config, World) -> (first draw, number of draws) -> Batch go into the one training loop.
    `reuse` steps in a row learn from one rollout and are not parted by a checkpoint. `modules` are what it learns
    beside the family's own, from (config, family's modules). `first` is its state before the first step.
    """

    name: str
    about: str
    config: type  # pydantic model
    needs: tuple[str, ...]
    feeds: Literal["reward", "gradient", "preferences"]
    objective: Callable[[Any, Steered], Objective]
    batches: Callable[[Any, World], Callable[[int, int], Batch]]
    reuse: Callable[[Any], int] = lambda config: 1
    group: Callable[[Any], int] = lambda config: 1  # draws that belong together: a batch holds whole groups
    modules: Callable[[Any, Modules], Mapping[str, nn.Module]] = lambda config, modules: {}
    first: Callable[[Any], State] = lambda config: {}
    recipe: Mapping[str, Any] = field(default_factory=dict)  # fields of TrainConfig
