"""Which noise goes with which example: pairs within a batch that lie near each other (optimal transport)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from afresh.core import Cond


def groups(cond: Cond) -> Tensor:
    """(B,) int64: rows with equal conditions have equal numbers. Absent parts are equal to one another."""
    columns = [torch.zeros(cond.size, 1)]
    for name, value in cond.parts.items():
        there = cond.present[name].cpu()
        flat = value.detach().cpu().float().reshape(cond.size, -1) * there[:, None]
        columns += [flat, there[:, None].float()]
    return torch.unique(torch.cat(columns, 1), dim=0, return_inverse=True)[1]


def within_class(x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
    """The noise (B, ...) in the order that makes the squared distances to x smallest among rows of equal conditions.

    Minibatch optimal transport (Tong et al. 2024, OT-CFM), kept within a condition: across conditions it would tell the
    noise what is asked for, which sampling does not know. It looks at the batch as a whole, so a batch that is divided
    into micro-batches is coupled within each of them.
    """
    out = noise.clone()
    which = groups(cond)
    for group in which.unique():
        rows = (which == group).nonzero()[:, 0].to(x.device)
        cost = torch.cdist(x[rows].flatten(1).float(), noise[rows].flatten(1)).square()
        to, of = linear_sum_assignment(cost.cpu().numpy())
        out[rows[torch.from_numpy(to)]] = noise[rows[torch.from_numpy(of)]]
    return out
