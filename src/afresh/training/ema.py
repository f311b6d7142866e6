"""An exponential moving average of weights, with a half-life in examples that grows at the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Average = dict[str, dict[str, Tensor]]  # module -> name -> tensor


def ema_decay(half_life: float, seen: float, batch: int, rampup: float = 0.05) -> float:
    """Factor kept in one step of `batch` examples; early on the half-life is `rampup` of those seen (Karras et al.
    2022, appendix F.2)."""
    if half_life <= 0:
        return 0.0
    return 0.5 ** (batch / max(min(half_life, rampup * seen), 1e-8))


@torch.no_grad()
def ema_update(average: Sequence[Tensor], current: Sequence[Tensor], keep: float) -> None:
    """average <- keep * average + (1 - keep) * current, in place."""
    if average:  # a module without weights, such as the conditioning of a model without conditions, has none
        torch._foreach_lerp_(list(average), list(current), 1.0 - keep)


def flat(average: Average) -> dict[str, Tensor]:
    """{module.name: tensor}, as files hold it."""
    return {f"{m}.{k}": v.contiguous() for m, mine in average.items() for k, v in mine.items()}


def refill(average: Average, found: Mapping[str, Tensor]) -> None:
    """Put what `flat` gave back into an average of the same shape. Raises KeyError where a tensor is missing."""
    for m, mine in average.items():
        for k, v in mine.items():
            v.copy_(found[f"{m}.{k}"])


def follow(average: Average, current: Mapping[str, Mapping[str, Tensor]], keep: float) -> None:
    """`ema_update` of every tensor of every module; what is no real number is taken as it now is."""
    for m, mine in average.items():
        floating = [k for k, v in mine.items() if v.is_floating_point()]
        ema_update([mine[k] for k in floating], [current[m][k] for k in floating], keep)
        for k in mine.keys() - set(floating):
            mine[k].copy_(current[m][k])
