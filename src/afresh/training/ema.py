"""An exponential moving average of weights, with a half-life in examples that grows at the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
