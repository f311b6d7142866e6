"""Noise is paired within a condition, at the smallest cost, and none is lost."""

from __future__ import annotations

from itertools import permutations

import torch

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.sampling.coupling import groups, within_class


def request(labels: list[int], present: list[bool]) -> Cond:
    return Cond(len(labels), {"label": torch.tensor(labels)}, {"label": torch.tensor(present)})


def test_rows_of_equal_conditions_are_a_group() -> None:
    found = groups(request([0, 1, 0, 1, 2, 0], [True, True, True, False, False, True]))
    assert found[0] == found[2] == found[5]
    assert found[3] == found[4]  # what is absent is equal, whatever its value
    assert len(found.unique()) == 3


def test_no_condition_is_one_group() -> None:
    assert not groups(Cond(4)).any()


def test_the_cost_is_the_smallest_within_each_class() -> None:
    rows = torch.arange(8)
    x, noise = Rng(1).normal("x", rows, (2, 3)), Rng(1).normal("e", rows, (2, 3))
    labels = [0, 1, 1, 0, 1, 0, 1, 0]
    out = within_class(x, noise, request(labels, [True] * 8))
    for c in (0, 1):
        mine = torch.tensor([i for i, v in enumerate(labels) if v == c])
        costs = [float((x[mine] - noise[mine[list(p)]]).square().sum()) for p in permutations(range(4))]
        assert abs(float((x[mine] - out[mine]).square().sum()) - min(costs)) < 1e-4
        assert {tuple(v.flatten().tolist()) for v in out[mine]} == {tuple(v.flatten().tolist()) for v in noise[mine]}
