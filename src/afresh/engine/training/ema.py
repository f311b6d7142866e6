"""Exponential moving averages of weights, with a half-life in examples that grows at the start of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from afresh.engine.training.sharding import divided_like, own_part, whole_for_leader

Average = dict[str, dict[str, Tensor]]  # module -> name -> tensor


def ema_decay(half_life: float, seen: float, batch: int, rampup: float = 0.05) -> float:
    """The factor of the average in one step of `batch` examples. At the start, the half-life is `rampup` times the
    number of examples seen (Karras et al. 2022, appendix F.2)."""
    if half_life <= 0:
        return 0.0
    return 0.5 ** (batch / max(min(half_life, rampup * seen), 1e-8))


@torch.no_grad()
def ema_update(average: Sequence[Tensor], current: Sequence[Tensor], keep: float) -> None:
    """average <- keep * average + (1 - keep) * current, in place."""
    if average:  # empty for a module without weights, such as the conditioning of an unconditional model
        torch._foreach_lerp_([own_part(t) for t in average], [own_part(t) for t in current], 1.0 - keep)


def flat(average: Average) -> dict[str, Tensor]:
    """The average as {module.parameter: tensor}, as in files."""
    return {f"{m}.{k}": whole_for_leader(v) for m, own in average.items() for k, v in own.items()}


def refill(average: Average, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors named as by `flat` into an average. Raises KeyError if one is missing, and RuntimeError if it has
    another shape."""
    for m, own in average.items():
        for k, v in own.items():
            copy_named(v, tensors, f"{m}.{k}")


@torch.no_grad()
def copy_named(target: Tensor, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy a stored tensor, without the broadcasting and conversion of `copy_`. Raises KeyError if it is missing, and
    RuntimeError if it has another shape or type."""
    found = tensors[name]
    if found.shape != target.shape or found.dtype != target.dtype:
        raise RuntimeError(
            f"{name} is {found.dtype} of shape {tuple(found.shape)}, not {target.dtype} of {tuple(target.shape)}"
        )
    own_part(target).copy_(own_part(divided_like(target, found)))


def follow(average: Average, current: Mapping[str, Mapping[str, Tensor]], keep: float) -> None:
    """Apply `ema_update` to every tensor of every module. Tensors of integers are copied."""
    for m, own in average.items():
        floating = [k for k, v in own.items() if v.is_floating_point()]
        ema_update([own[k] for k in floating], [current[m][k] for k in floating], keep)
        for k in own.keys() - set(floating):
            own[k].copy_(current[m][k])
