"""Losses of policy gradients.

A step is a token or one step of denoising; `mask` (B, T) bool is true for the policy's own steps. Losses are returned
for each step, (B, T), 0 where masked. Advantages are (B, T), or (B,) for whole sequences; log-probabilities are those
of the steps. All functions raise UserError for shapes that disagree, for numbers that are not finite and for settings
out of range.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.engine.alignment.methods.advantages import agreed, spread, within

MAX_LOG_RATIO = 20.0  # in nats; larger log-ratios have no gradient, instead of an infinite one


@dataclass(frozen=True)
class ClippedSurrogate:
    """Losses (B, T), and where clipping removed the gradient, (B, T) bool."""

    losses: Tensor
    clipped: Tensor


def ppo(
    logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float = 0.2, high: float | None = None
) -> ClippedSurrogate:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = exp(logp - old): Schulman et al. 2017, eq. 7.

    logp, old (B, T) are those of the current policy and of the policy that drew the samples. `high` above `low` lets
    improbable steps become more probable (clip-higher: Yu et al. 2025, DAPO, sec. 3.1); None: equal to `low`. With
    the advantages of `grpo` this is the loss of GRPO at any step, without its penalty; at the first step, where the
    ratio is 1, its gradient is that of -A logp (Ahmadian et al. 2024, RLOO; Shao et al. 2024).
    """
    within("low", low, 0, 1)
    top = low if high is None else high
    within("high", top, 0, 1e6)
    now, then = agreed({"logp": logp, "old": old}, 2, mask)
    a = spread(advantages, mask).to(now)
    ratio = (now - then.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded = ratio.clamp(1 - low, 1 + top)
    gain = torch.minimum(ratio * a, bounded * a)
    return ClippedSurrogate(-gain, mask & (bounded * a < ratio * a))


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
