"""What makes a family alignable: samples with the probability of each step, as capabilities of its networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from afresh.core.rng import Rng
from afresh.core.space import Batch, Cond, Space

Modules = Mapping[str, nn.Module]


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
