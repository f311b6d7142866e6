"""Pairing noise with examples in a batch by optimal transport."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from afresh.core import Cond


def groups(cond: Cond) -> Tensor:
    """Numbers (B,) int64 of groups of rows with equal conditions. Absent parts are equal to one another."""
    columns = [torch.zeros(cond.size, 1)]
    for name, value in cond.parts.items():
        present = cond.present[name].cpu()
        flat = value.detach().cpu().float().reshape(cond.size, -1) * present[:, None]
        columns += [flat, present[:, None].float()]
    return torch.unique(torch.cat(columns, 1), dim=0, return_inverse=True)[1]


def within_class(x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
    """Permutes the noise (B, ...) to minimise the sum of squared distances to x among rows of equal conditions.

    Minibatch optimal transport (Tong et al. 2024, OT-CFM), restricted to equal conditions: otherwise noise would depend
    on the condition in training, but not in sampling. Batches that are divided into micro-batches are coupled within
    each micro-batch.
    """
    out = noise.clone()
    group_of_row = groups(cond)
    for group in group_of_row.unique():
        rows = (group_of_row == group).nonzero()[:, 0].to(x.device)
        cost = torch.cdist(x[rows].flatten(1).float(), noise[rows].flatten(1)).square()
        target, source = linear_sum_assignment(cost.cpu().numpy())
        out[rows[torch.from_numpy(target)]] = noise[rows[torch.from_numpy(source)]]
    return out
