"""Losses of policy gradients, and the difference between the log-probabilities of the sampler and of the trainer.

A step is a token or one step of denoising; `mask` (B, T) bool is true for the policy's own steps. Losses are returned
for each step, (B, T), 0 where masked, for `advantages.token_mean` or for a sum and its weight. Advantages are (B, T),
or (B,) for whole sequences; log-probabilities are those of the steps. All functions raise UserError for shapes that
disagree, for numbers that are not finite and for settings out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.core.device import wide
from afresh.engine.alignment.methods.advantages import agreed, spread, within
from afresh.engine.alignment.methods.divergence import k3, log_shares

MAX_LOG_RATIO = 20.0  # in nats; larger log-ratios have no gradient, instead of an infinite one


@dataclass(frozen=True)
class ClippedSurrogate:
    """Losses (B, T), and where clipping removed the gradient, (B, T) bool."""

    losses: Tensor
    clipped: Tensor


def surrogate(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-advantage logp, (B, T), whose gradient is the policy gradient on samples of the policy itself.

    With the advantages of `rloo` or `grpo`, the token-level losses of RLOO (Ahmadian et al. 2024) and of GRPO at its
    first step (Shao et al. 2024). For samples used more than once: `ppo`.
    """
    (now,) = agreed({"logp": logp}, 2, mask)
    return -spread(advantages, mask).to(now) * now


def ppo(
    logp: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    low: float = 0.2,
    high: float | None = None,
    dual: float | None = None,
) -> ClippedSurrogate:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = exp(logp - old): Schulman et al. 2017, eq. 7.

    logp, old (B, T) are those of the current policy and of the policy that drew the samples. `high` above `low` lets
    improbable steps become more probable (clip-higher: Yu et al. 2025, DAPO, sec. 3.1); None: equal to `low`. `dual`,
    above 1, bounds the loss of steps with A < 0, whose ratio is unbounded otherwise, by -dual A (Ye et al. 2020). With
    the advantages of `grpo` this is the loss of GRPO at any step, without its penalty and with `token_mean`.
    """
    within("low", low, 0, 1)
    top = low if high is None else high
    within("high", top, 0, 1e6)
    if dual is not None and not dual > 1:
        raise UserError(f"dual must be above 1 (3 is usual) or None. Given: {dual:g}.")
    now, then = agreed({"logp": logp, "old": old}, 2, mask)
    a = spread(advantages, mask).to(now)
    ratio = (now - then.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded = ratio.clamp(1 - low, 1 + top)
    gain = torch.minimum(ratio * a, bounded * a)
    clipped = mask & (bounded * a < ratio * a)
    if dual is not None:
        floor = torch.where(a < 0, dual * a, gain)
        clipped = clipped | (mask & (gain < floor))
        gain = torch.maximum(gain, floor)
    return ClippedSurrogate(-gain, clipped)


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, old: Tensor | None = None, clip: float = 0.2
) -> ClippedSurrogate:
    """The loss of a critic for each step, (V - return)^2 / 2, (B, T).

    With `old` values (B, T), it is the larger of that and of the loss of V clipped to within `clip` of `old`, so that
    larger changes are not rewarded (as in the published code of PPO, not in Schulman et al. 2017). `clip` has the unit
    of the returns.
    """
    v, target = agreed({"values": values, "returns": returns}, 2, mask)
    target = target.detach()
    plain = (v - target).square() / 2
    if old is None:
        return ClippedSurrogate(plain, torch.zeros_like(mask))
    within("clip", clip, 0, 1e9)
    before = agreed({"values": values, "old": old}, 2, mask)[1].detach()
    near = (before + (v - before).clamp(-clip, clip) - target).square() / 2
    return ClippedSurrogate(torch.maximum(plain, near), mask & (near > plain))


def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """The entropy of each step's distribution in nats, (B, T), 0 where masked; from logits (B, T, V), minus infinity
    for forbidden tokens. As a bonus in a loss, its gradient ignores the effect of a step on later prefixes."""
    logs = log_shares(logits, mask)
    return -(logs.exp() * torch.where(logs > -torch.inf, logs, 0)).sum(2).masked_fill(~mask, 0)


# --------------------------------------------------------------------------- the sampler and the trainer


@dataclass(frozen=True)
class Gap:
    """The difference between the log-probabilities of the sampler and of the trainer over n steps of the sampler.

    mean, worst: mean and maximum of |trainer - sampler|, in nats. divergence: KL(sampler || trainer) for each step, in
    nats, by k3. effective: the effective sample size of the importance weights as a share of n,
    (sum w)^2 / (n sum w^2) (Kong et al. 1994). If both agree, `effective` is 1 and the others are 0.
    """

    mean: float
    worst: float
    divergence: float
    effective: float
    n: int


def gap(sampler: Tensor, trainer: Tensor, mask: Tensor) -> Gap:
    """Statistics of the sampler's and the trainer's log-probabilities (B, T) of the steps of the sampler.

    Raises UserError if the mask is false everywhere.
    """
    drawn, learnt = (wide(x.detach()[mask]) for x in agreed({"sampler": sampler, "trainer": trainer}, 2, mask))
    if not len(drawn):
        raise UserError("The mask is false everywhere, so there are no steps to compare.")
    d = learnt - drawn
    w = (d - d.max()).exp()  # up to a factor, which cancels
    effective = float(w.sum() ** 2 / (len(w) * w.square().sum()))
    return Gap(float(d.abs().mean()), float(d.abs().max()), float(k3(drawn, learnt).mean()), effective, len(d))
