"""Policies: what alignment needs of a family, such as the probability of each step of a sample."""

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
    """B samples and the steps that drew them.

    x (B, ...) is as in `Sampling.sample`. `batch` is the argument of `steps`, which computes the probability of each
    step. `logp` (B, T) are the log-probabilities under the sampler; values where batch.mask is false are ignored.
    """

    x: Tensor
    batch: Batch
    logp: Tensor


@dataclass(frozen=True)
class Steps:
    """The steps of B samples.

    `logp` (B, T): log-probabilities in nats, with gradients. `mask` (B, T) bool: which steps are counted. `entropy` (B,
    T): of the distribution of each step. `features` (B, T, W): inputs of a critic, without gradients.
    """

    logp: Tensor
    mask: Tensor
    entropy: Tensor
    features: Tensor


@dataclass(frozen=True)
class Policy:
    """The capabilities of a family that alignment methods need; None if the family lacks one.

    All functions take (modules, config, space) first. A step is a token, or an interval of denoising.

    moves: names of the modules that are trained. rollout (cond, rng, index, settings) -> Rollout. Raises UserError for
    settings that change the policy. steps (batch) -> Steps. score (batch, rng) -> (B,): a log-likelihood, a lower bound
    of one, or minus a matching error in nats. Noise is keyed by batch.index, so that models are compared under equal
    noise. draw (cond, rng, index, settings) -> x (B, *shape), differentiable in the weights. denoise (batch, rng) ->
    the prediction for noised examples and its target, both (B, *shape). Times and noise are keyed by batch.index. fits:
    whether training on its own best samples was measured to improve the reward without loss of quality
    (tools/matrix/align.py).
    """

    moves: tuple[str, ...]
    rollout: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Rollout] | None = None
    steps: Callable[[Modules, Any, Space, Batch], Steps] | None = None
    score: Callable[[Modules, Any, Space, Batch, Rng], Tensor] | None = None
    draw: Callable[[Modules, Any, Space, Cond, Rng, Tensor, Any], Tensor] | None = None
    denoise: Callable[[Modules, Any, Space, Batch, Rng], tuple[Tensor, Tensor]] | None = None
    fits: bool = False

    def has(self) -> tuple[str, ...]:
        """The names of the capabilities that the family has."""
        every = {
            "rollout": self.rollout,
            "steps": self.steps,
            "score": self.score,
            "draw": self.draw,
            "denoise": self.denoise,
            "fits": self.fits or None,
        }
        return tuple(k for k, v in every.items() if v is not None)
