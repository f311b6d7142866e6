"""Advantages from rewards: by how much each sample, or each of its steps, exceeds the expected reward.

A step is a token or one step of denoising. Sequences are rows of (B, T); `mask` (B, T) bool is true for the policy's
own steps, and values at all other steps (padding, the answer of a tool) are ignored. Advantages have no gradient. All
functions raise UserError for shapes that disagree and for numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import UserError

# --------------------------------------------------------------------------- checks and sums


def agreed(tensors: Mapping[str, Tensor], rank: int, mask: Tensor | None = None) -> list[Tensor]:
    """The tensors in float32 or float64, 0 where `mask` is false.

    Raises UserError, naming the tensor, unless all have the same shape with `rank` axes and are finite where `mask` is
    true.
    """
    named = list(tensors.items())
    first, shape = named[0][0], named[0][1].shape
    axes = ("(B,)", "(B, T)")[rank - 1]
    for name, values in named:
        if values.dim() != rank or values.shape != shape:
            raise UserError(
                f"{name} has the shape {tuple(values.shape)}; {first} has {tuple(shape)}. All must be {axes}."
            )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != shape):
        raise UserError(
            f"The mask must be bool of the shape {tuple(shape)} of {first}, and true for the policy's own steps. "
            f"Given: {mask.dtype} of shape {tuple(mask.shape)}."
        )
    out = []
    for name, values in named:
        wide = values if values.dtype == torch.float64 else values.float()  # half precision is too coarse for sums
        masked = wide if mask is None else wide.masked_fill(~mask, 0)
        bad = int((~torch.isfinite(masked)).sum())
        if bad:
            raise UserError(
                f"{name} is not finite for {bad} of {values.numel()} values. Rewards must be finite, and "
                "log-probabilities are minus infinity for samples that the model forbids: leave out such samples, or "
                "set the mask to false there."
            )
        out.append(masked)
    return out


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low:g} to {high:g}. Given: {value:g}.")


def spread(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages (B, T) of steps, 0 where masked; those of sequences (B,) are repeated for each of their steps."""
    if advantages.dim() == 1 and mask.dim() == 2 and len(advantages) == len(mask):
        advantages = advantages[:, None].expand(mask.shape)
    return agreed({"advantages": advantages}, 2, mask)[0].detach()


def at_end(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards of whole sequences (B,) as rewards of steps (B, T), at the last step where `mask` is true.

    Raises UserError for a sequence without such a step.
    """
    (rewards,) = agreed({"rewards": rewards}, 1)
    if mask.dim() != 2 or len(mask) != len(rewards) or not bool(mask.any(1).all()):
        raise UserError(
            f"Each reward must have a row of the mask with at least one step. Given: {len(rewards)} rewards, mask "
            f"{tuple(mask.shape)}."
        )
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)  # argmax returns the first of equal values
    return torch.zeros(mask.shape, dtype=rewards.dtype, device=rewards.device).scatter(
        1, last[:, None], rewards[:, None]
    )


# --------------------------------------------------------------------------- with a critic


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates, and the returns that a critic should learn, both (B, T), 0 where masked.

    Schulman et al. 2016, eq. 16: A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t; the return is
    A_t + V_t. Rewards and values are (B, T). Masked steps are skipped: t + 1 is the next step where `mask` is true.
    Raises UserError for a reward at a masked step, which would be ignored.
    """
    within("gamma", gamma, 0, 1)
    within("lam", lam, 0, 1)
    r, v = (x.detach() for x in agreed({"rewards": rewards, "values": values}, 2, mask))
    if bool((rewards.masked_fill(mask, 0) != 0).any()):
        raise UserError("Some rewards are at masked steps. Add them to the last step before that is not masked.")
    run = value = torch.zeros_like(v[:, 0])
    reversed_advantages = []
    for t in reversed(range(v.shape[1])):
        here = r[:, t] + gamma * value - v[:, t] + gamma * lam * run
        run = torch.where(mask[:, t], here, run)
        value = torch.where(mask[:, t], v[:, t], value)
        reversed_advantages.append(run)
    advantages = torch.stack(reversed_advantages[::-1], 1).masked_fill(~mask, 0)
    return advantages, advantages + v


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Values (B, T) with mean 0 and variance 1 over all steps where `mask` is true.

    The variance is unbiased. Values that are all equal become 0. Raises UserError for fewer than two steps.
    """
    (masked,) = agreed({"values": values}, 2, mask)
    steps = masked.detach()[mask]
    if len(steps) < 2:
        raise UserError(f"Whitening needs at least 2 steps where the mask is true. Given: {len(steps)}.")
    white = (
        (masked.detach() - steps.mean()) / (steps.var() + eps).sqrt() if bool(steps.min() < steps.max()) else 0 * masked
    )
    return white.masked_fill(~mask, 0).detach()


# --------------------------------------------------------------------------- without a critic


@dataclass(frozen=True)
class Grouped:
    """Advantages (P, N) of N samples for each of P requests, and `flat`, the share of groups with equal rewards.

    The advantages of a group with equal rewards are 0, so nothing is learnt from it. If `flat` is near 1, the reward is
    too coarse, or the requests are too easy or too hard.
    """

    advantages: Tensor
    flat: float


def _groups(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards (P, N), and which groups (P,) are flat."""
    (r,) = agreed({"rewards": rewards}, 2)
    if r.shape[1] < 2:
        raise UserError(
            f"Groups need at least 2 samples, which are compared with each other. Given: {r.shape[1]}. Draw more "
            "samples for each request (8 is usual), or use a running baseline (reinforce)."
        )
    return r.detach(), (r == r[:, :1]).all(1)


def _grouped(advantages: Tensor, flat: Tensor) -> Grouped:
    # Set to 0 exactly, as rounding errors of the mean would otherwise be scaled up.
    return Grouped(advantages.masked_fill(flat[:, None], 0), float(flat.float().mean()) if len(flat) else 0.0)


def grpo(rewards: Tensor, scale: bool = True, eps: float = 1e-6) -> Grouped:
    """(r - mean) / (deviation + eps) within each group; row p of rewards (P, N) has those of the samples of request p.

    Shao et al. 2024, sec. 4.1.2 (GRPO), with the sample deviation (divided by N - 1). The division gives requests with
    rare successes or failures a larger weight; without it (`scale` false: Liu et al. 2025, Dr. GRPO) the expected
    gradient is (N - 1) / N of the policy gradient. Raises UserError for groups of one.
    """
    r, flat = _groups(rewards)
    centred = r - r.mean(1, keepdim=True)
    return _grouped(centred / (r.std(1, keepdim=True) + eps) if scale else centred, flat)


def rloo(rewards: Tensor) -> Grouped:
    """r minus the mean of the other rewards in its group; rewards (P, N), N at least 2.

    Ahmadian et al. 2024 (REINFORCE leave-one-out). The baseline does not depend on the sample itself, so that the
    gradient is unbiased. Raises UserError for groups of one.
    """
    r, flat = _groups(rewards)
    n = r.shape[1]
    return _grouped(r - (r.sum(1, keepdim=True) - r) / (n - 1), flat)


def reinforce(rewards: Tensor, seen: Tensor, decay: float = 0.9) -> tuple[Tensor, Tensor]:
    """Advantages (B,), which are rewards (B,) minus a running mean of earlier batches, and the updated `seen` (2,).

    Williams 1992 (reinforcement comparison). `seen` is a decayed sum of rewards and its weight, initially
    torch.zeros(2), for a baseline of 0. A batch does not enter its own baseline, which would bias the gradient.
    """
    within("decay", decay, 0, 1)
    (r,) = agreed({"rewards": rewards}, 1)
    if seen.shape != (2,) or not len(r):
        raise UserError(
            f"`seen` must be of shape (2,), initially torch.zeros(2), and rewards must not be empty. Given: "
            f"{tuple(seen.shape)}, {len(r)} rewards."
        )
    r, seen = r.detach(), seen.detach()
    total, weight = seen
    baseline = torch.where(weight > 0, total / torch.where(weight > 0, weight, torch.ones_like(weight)), 0 * total)
    now = torch.stack([r.mean(), torch.ones_like(r[0])]).to(seen)
    return r - baseline.to(r), decay * seen + (1 - decay) * now
