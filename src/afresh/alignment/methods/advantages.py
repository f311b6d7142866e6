"""How much better than expected each sample, or each step of it, was: from rewards to advantages.

A step is a token, or one step of denoising. Sequences are rows of (B, T); `mask` (B, T) bool is true at the policy's
own steps, and what stands elsewhere (padding, a tool's answer) is never looked at. Advantages are constants: no
gradient flows through them. Everything raises UserError for shapes that disagree and for numbers that are not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from afresh.core import UserError

# --------------------------------------------------------------------------- what all of control checks and sums


def agreed(tensors: Mapping[str, Tensor], rank: int, mask: Tensor | None = None) -> list[Tensor]:
    """The tensors, of one shape with `rank` axes, at least float32, finite where `mask` is true and 0 elsewhere.

    Raises UserError naming the tensor that is at fault.
    """
    found = list(tensors.items())
    first, shape = found[0][0], found[0][1].shape
    axes = ("(B,)", "(B, T)")[rank - 1]
    for name, values in found:
        if values.dim() != rank or values.shape != shape:
            raise UserError(
                f"{name} has the shape {tuple(values.shape)}; {first} has {tuple(shape)}. All are to be {axes}."
            )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != shape):
        raise UserError(
            f"The mask is {mask.dtype} of shape {tuple(mask.shape)}. It is to be bool, of the shape {tuple(shape)} "
            f"of {first}: true at the steps that count."
        )
    out = []
    for name, values in found:
        wide = values if values.dtype == torch.float64 else values.float()  # sums in half precision are worth nothing
        kept = wide if mask is None else wide.masked_fill(~mask, 0)
        bad = int((~torch.isfinite(kept)).sum())
        if bad:
            raise UserError(
                f"{name} is not finite at {bad} of {values.numel()} places. Rewards must be numbers, and a "
                "log-probability is minus infinity where something was drawn that the model forbids: leave out such "
                "samples, or set the mask to false there."
            )
        out.append(kept)
    return out


def within(name: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(f"{name} is {value:g}. It is to be from {low:g} to {high:g}.")


def token_mean(values: Tensor, mask: Tensor, weight: float | None = None) -> Tensor:
    """The sum over all steps that count, divided by their number: a scalar. Values and mask (B, T).

    Every step weighs the same, however long its sequence is; a mean within each sequence (1 / |o|, Shao et al. 2024,
    eq. 3) makes long bad answers cheap (Liu et al. 2025, sec. 3). The number of steps depends on the sample, so
    that the mean of a few sequences is a ratio, with a ratio's small bias; a fixed `weight`, such as the number of
    sequences, gives the policy gradient itself. A loss that is accumulated over micro-batches takes the weight of all.
    Raises UserError where no step counts.
    """
    (kept,) = agreed({"values": values}, 2, mask)
    count = float(mask.sum()) if weight is None else weight
    if not count > 0:
        raise UserError("No step counts: the mask is false everywhere, or the weight is not above 0.")
    return kept.sum() / count


def spread(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages of sequences (B,) at each of their steps, (B, T); those of steps, (B, T), are only masked."""
    if advantages.dim() == 1 and mask.dim() == 2 and len(advantages) == len(mask):
        advantages = advantages[:, None].expand(mask.shape)
    return agreed({"advantages": advantages}, 2, mask)[0].detach()


def at_end(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards of whole sequences (B,) as rewards of steps (B, T): all of it at the last step that counts.

    Raises UserError for a sequence without such a step.
    """
    (rewards,) = agreed({"rewards": rewards}, 1)
    if mask.dim() != 2 or len(mask) != len(rewards) or not bool(mask.any(1).all()):
        raise UserError(
            f"{len(rewards)} rewards and a mask {tuple(mask.shape)}: each is to have a row with at least one step."
        )
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(1)  # argmax gives the first of equals
    return torch.zeros(mask.shape, dtype=rewards.dtype, device=rewards.device).scatter(
        1, last[:, None], rewards[:, None]
    )


# --------------------------------------------------------------------------- with a critic


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    lam: float = 0.95,
    after: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns that a critic should learn, both (B, T), 0 where masked.

    Schulman et al. 2016, eq. 16: A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t; the return is
    A_t + V_t. Rewards and values (B, T); `after` (B,) is the value of what follows the last step, for sequences that
    were cut off instead of ended. Steps that are masked out are passed over: t + 1 is the next step that counts.
    Raises UserError for a reward at a masked step, which would be lost.
    """
    within("gamma", gamma, 0, 1)
    within("lam", lam, 0, 1)
    r, v = (x.detach() for x in agreed({"rewards": rewards, "values": values}, 2, mask))
    if bool((rewards.masked_fill(mask, 0) != 0).any()):
        raise UserError("There are rewards at steps that the mask leaves out. Add them to the last step before.")
    run = torch.zeros_like(v[:, 0])
    value = run
    if after is not None:
        value = agreed({"values[:, 0]": run, "after": after}, 1)[1].detach().to(run)
    found = []
    for t in reversed(range(v.shape[1])):
        here = r[:, t] + gamma * value - v[:, t] + gamma * lam * run
        run = torch.where(mask[:, t], here, run)
        value = torch.where(mask[:, t], v[:, t], value)
        found.append(run)
    advantages = torch.stack(found[::-1], 1).masked_fill(~mask, 0)
    return advantages, advantages + v


def whiten(values: Tensor, mask: Tensor, shift: bool = True, eps: float = 1e-8) -> Tensor:
    """Values (B, T) with mean 0 and variance 1 over all steps that count; without `shift` the mean stays.

    The variance is unbiased. Values that are all equal become 0 (or stay, without `shift`). Raises UserError for
    fewer than two steps.
    """
    (kept,) = agreed({"values": values}, 2, mask)
    picked = kept.detach()[mask]
    if len(picked) < 2:
        raise UserError(f"Whitening needs at least 2 steps that count; there are {len(picked)}.")
    mean = picked.mean()
    white = (kept.detach() - mean) / (picked.var() + eps).sqrt() if bool(picked.min() < picked.max()) else 0 * kept
    return (white if shift else white + mean).masked_fill(~mask, 0).detach()


# --------------------------------------------------------------------------- without a critic


@dataclass(frozen=True)
class Grouped:
    """Advantages (P, N) of N samples for each of P requests, and the share of groups that teach nothing.

    A group whose rewards are all the same has no signal: its advantages are 0. Where `flat` is near 1, the reward is
    too coarse, or the requests too easy or too hard.
    """

    advantages: Tensor
    flat: float


def _groups(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards (P, N), and which groups (P,) are flat."""
    (r,) = agreed({"rewards": rewards}, 2)
    if r.shape[1] < 2:
        raise UserError(
            f"The groups have {r.shape[1]} sample each: there is nothing to compare it with, and no signal. Draw at "
            "least 2 samples for each request (8 is usual), or use a running baseline (reinforce)."
        )
    return r.detach(), (r == r[:, :1]).all(1)


def _grouped(advantages: Tensor, flat: Tensor) -> Grouped:
    # Set, not computed: the rounding of a mean must not become a direction.
    return Grouped(advantages.masked_fill(flat[:, None], 0), float(flat.float().mean()) if len(flat) else 0.0)


def grpo(rewards: Tensor, scale: bool = True, eps: float = 1e-6) -> Grouped:
    """(r - mean) / (deviation + eps) within each group; rewards (P, N), row p being the samples of request p.

    Shao et al. 2024, sec. 4.1.2 (GRPO), with the sample's deviation (divided by N - 1). The division weighs requests
    with rare successes or failures more; without it (`scale` false: Liu et al. 2025, Dr. GRPO) the expected gradient
    is (N - 1) / N of the policy gradient. Raises UserError for groups of one.
    """
    r, flat = _groups(rewards)
    centred = r - r.mean(1, keepdim=True)
    return _grouped(centred / (r.std(1, keepdim=True) + eps) if scale else centred, flat)


def rloo(rewards: Tensor) -> Grouped:
    """r minus the mean of the others in its group; rewards (P, N), N at least 2.

    Ahmadian et al. 2024 (REINFORCE leave-one-out): the baseline does not depend on the sample itself, so that the
    gradient is unbiased. Raises UserError for groups of one.
    """
    r, flat = _groups(rewards)
    n = r.shape[1]
    return _grouped(r - (r.sum(1, keepdim=True) - r) / (n - 1), flat)


def reinforce(rewards: Tensor, seen: Tensor, decay: float = 0.9) -> tuple[Tensor, Tensor]:
    """Rewards (B,) minus a running mean of earlier batches, and what has been seen now: advantages (B,), seen (2,).

    Williams 1992 (reinforcement comparison). `seen` holds a decayed sum and its weight; at first
    torch.zeros(2), which is a baseline of 0. A batch does not enter its own baseline: that would bias the gradient.
    """
    within("decay", decay, 0, 1)
    (r,) = agreed({"rewards": rewards}, 1)
    if seen.shape != (2,) or not len(r):
        raise UserError(f"seen has the shape {tuple(seen.shape)}, of {len(r)} rewards. At first it is torch.zeros(2).")
    r, seen = r.detach(), seen.detach()
    total, weight = seen
    baseline = torch.where(weight > 0, total / torch.where(weight > 0, weight, torch.ones_like(weight)), 0 * total)
    now = torch.stack([r.mean(), torch.ones_like(r[0])]).to(seen)
    return r - baseline.to(r), decay * seen + (1 - decay) * now
