"""The contract of solvers, for any network: independent rows, equal shapes, determinism."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.sampling import ode
from tests.contracts.rows import SOLVERS, SPACES, SolverRow

every_row = pytest.mark.parametrize("row", SOLVERS, ids=lambda r: r.name)
FIELDS = [s for s in SPACES.values() if s.kind == "field"]


def swirl(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """A velocity that depends on position, time and condition."""
    a = t.view(-1, *[1] * (x.dim() - 1))
    label = cond.parts["label"].view(-1, *[1] * (x.dim() - 1))
    return torch.sin(x + a) * (1 + label), state


def solved(row: SolverRow, x: Tensor, label: Tensor) -> Tensor:
    cond = Cond(len(x), {"label": label.float()}, {"label": torch.ones(len(x), dtype=torch.bool)})
    return ode.SOLVERS[row.name](swirl, x, cond, ode.times(row.steps))


@every_row
@pytest.mark.parametrize("space", FIELDS, ids=lambda s: str(s.shape))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_kind_and_rows(row: SolverRow, space: Any, dtype: torch.dtype) -> None:
    x = Rng(0).normal("x", torch.arange(4), space.shape).to(dtype)
    label = torch.arange(4)
    before = x.clone()
    whole = solved(row, x, label)
    assert whole.shape == x.shape and whole.dtype == dtype and torch.equal(x, before)
    assert torch.equal(solved(row, x, label), whole)
    torch.testing.assert_close(solved(row, x[2:3], label[2:3]), whole[2:3], rtol=0, atol=1e-6)


@every_row
def test_a_velocity_of_zero_changes_nothing(row: SolverRow) -> None:
    x = Rng(0).normal("x", torch.arange(4), (3,))
    still = ode.SOLVERS[row.name](lambda x, t, c, s: (torch.zeros_like(x), s), x, Cond(4), ode.times(row.steps))
    assert torch.equal(still, x)


@every_row
def test_solving_in_reverse_returns_to_the_start(row: SolverRow) -> None:
    """With reversed times, a solver inverts itself up to its error."""
    x = Rng(0).normal("x", torch.arange(4), (3,)).double()
    cond = Cond(4, {"label": torch.zeros(4)}, {"label": torch.ones(4, dtype=torch.bool)})
    ts = ode.times(200)
    there = ode.SOLVERS[row.name](swirl, x, cond, ts)
    back = ode.SOLVERS[row.name](swirl, there, cond, ts.flip(0))
    torch.testing.assert_close(back, x, rtol=0, atol=10 / 200 ** ode.ORDER[row.name])
