"""What a policy minimises given advantages, and how far the program that drew the samples was from the one that learns.

A step is a token, or one step of denoising; `mask` (B, T) bool is true at the policy's own steps. Losses are given step
by step, (B, T), 0 where masked, for `advantages.token_mean` or a sum and its weight. Advantages are (B, T), or (B,) for
whole sequences; log-probabilities are those of the steps taken. Everything raises UserError for shapes that disagree,
for numbers that are not finite and for settings out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.alignment.methods.advantages import agreed, spread, within
from afresh.alignment.methods.divergence import k3, log_shares
from afresh.core import UserError

FAR = 20.0  # of a log-ratio, nats: what is further away gives no gradient, instead of an infinite one


@dataclass(frozen=True)
class Surrogate:
    """Losses (B, T), and where the clip took the gradient away (B, T) bool: its share belongs in the log."""

    losses: Tensor
    clipped: Tensor


def surrogate(logp: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """-advantage logp, (B, T): its gradient is the policy gradient on samples of the policy itself.

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
) -> Surrogate:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = exp(logp - old): Schulman et al. 2017, eq. 7.

    logp, old (B, T) of the policy now and when it drew. `high` above `low` leaves room for unlikely steps to become
    likely (clip-higher: Yu et al. 2025, DAPO, sec. 3.1); None: as `low`. `dual`, above 1, bounds the loss of steps with
    A < 0 by -dual A, whose ratio is unbounded otherwise (Ye et al. 2020). With the advantages of `grpo` this is
    GRPO's loss at any step, without its penalty, and with the mean over tokens (`token_mean`).
    """
    within("low", low, 0, 1)
    top = low if high is None else high
    within("high", top, 0, 1e6)
    if dual is not None and not dual > 1:
        raise UserError(f"dual is {dual:g}. It is to be above 1 (3 is usual), or None.")
    now, then = agreed({"logp": logp, "old": old}, 2, mask)
    a = spread(advantages, mask).to(now)
    ratio = (now - then.detach()).clamp(-FAR, FAR).exp()
    bounded = ratio.clamp(1 - low, 1 + top)
    gain = torch.minimum(ratio * a, bounded * a)
    clipped = mask & (bounded * a < ratio * a)
    if dual is not None:
        floor = torch.where(a < 0, dual * a, gain)
        clipped = clipped | (mask & (gain < floor))
        gain = torch.maximum(gain, floor)
    return Surrogate(-gain, clipped)


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, old: Tensor | None = None, clip: float = 0.2
) -> Surrogate:
    """A critic's (V - return)^2 / 2 step by step, (B, T). With `old` values (B, T) the larger of that and of the error
    of V kept within `clip` of old: steps beyond it are not rewarded (as in PPO's published code; Schulman et al. 2017
    do not have it). `clip` has the unit of the returns.
    """
    v, target = agreed({"values": values, "returns": returns}, 2, mask)
    target = target.detach()
    plain = (v - target).square() / 2
    if old is None:
        return Surrogate(plain, torch.zeros_like(mask))
    within("clip", clip, 0, 1e9)
    before = agreed({"values": values, "old": old}, 2, mask)[1].detach()
    near = (before + (v - before).clamp(-clip, clip) - target).square() / 2
    return Surrogate(torch.maximum(plain, near), mask & (near > plain))


def entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Of each step's distribution, nats (B, T), 0 where masked; logits (B, T, V), minus infinity where forbidden.

    As a bonus in a loss it spreads each step, with the prefixes as they are.
    """
    logs = log_shares(logits, mask)
    return -(logs.exp() * torch.where(logs > -torch.inf, logs, 0)).sum(2).masked_fill(~mask, 0)


# --------------------------------------------------------------------------- the sampler against the trainer


@dataclass(frozen=True)
class Gap:
    """How far the sampler's log-probabilities of its own steps are from the trainer's, over n steps.

    mean, worst: of |trainer - sampler|, nats. divergence: KL(sampler || trainer) a step, nats, by k3. effective: the
    share of n that importance weights leave, (sum w)^2 / (n sum w^2) (Kong et al. 1994). All are 0, and
    `effective` 1, where the two agree.
    """

    mean: float
    worst: float
    divergence: float
    effective: float
    n: int


def gap(sampler: Tensor, trainer: Tensor, mask: Tensor) -> Gap:
    """Statistics of the sampler's and the trainer's log-probabilities (B, T) of the steps that the sampler took.

    Raises UserError where no step counts.
    """
    drawn, learnt = (x.detach().double()[mask] for x in agreed({"sampler": sampler, "trainer": trainer}, 2, mask))
    if not len(drawn):
        raise UserError("No step counts: the mask is false everywhere.")
    d = learnt - drawn
    w = (d - d.max()).exp()  # up to a factor, which the effective share does not see
    effective = float(w.sum() ** 2 / (len(w) * w.square().sum()))
    return Gap(float(d.abs().mean()), float(d.abs().max()), float(k3(drawn, learnt).mean()), effective, len(d))


def truncated_weights(sampler: Tensor, trainer: Tensor, mask: Tensor, cap: float = 2.0, whole: bool = False) -> Tensor:
    """min(trainer / sampler, cap) of probabilities, (B, T), 0 where masked: factors for losses of steps.

    Truncated importance sampling (Ionides 2008), between a fast sampler and the trainer as in Yao et al. 2025: samples
    are of another policy than the one whose gradient is taken, if only by rounding. Ratios of single steps unless
    `whole`: then every step of a sequence has the sequence's ratio, which is exact with cap infinite, and varies more.
    No gradient.
    """
    if not cap > 0:
        raise UserError(f"cap is {cap:g}. It is to be above 0 (2 is usual).")
    drawn, learnt = (x.detach() for x in agreed({"sampler": sampler, "trainer": trainer}, 2, mask))
    d = learnt - drawn
    if whole:
        d = d.sum(1, keepdim=True).expand_as(d)
    return d.exp().clamp(max=cap).masked_fill(~mask, 0)
