"""Classifier-free guidance is a straight line through the unconditional and the conditional prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond
from afresh.sampling.guidance import classifier_free
from tests.sampling.fed import model

COND = Cond(3, {"label": torch.tensor([0, 1, 2])}, {"label": torch.tensor([True, True, False])})
X = torch.arange(6.0).view(3, 2)


def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """x + 10 for a row without its label, x + label with it; the state counts the rows it saw."""
    shift = torch.where(cond.present["label"], cond.parts["label"].float(), 10.0)
    return x + shift[:, None], (state or 0) + len(x)


def guided(scale: float, t: Any = 0.5) -> Tensor:
    return classifier_free(predict, scale)(X, t, COND, None)[0]


def test_one_is_the_conditional_model_itself() -> None:
    assert classifier_free(predict, 1.0) is predict


def test_zero_is_the_unconditional_model_exactly() -> None:
    torch.testing.assert_close(guided(0.0), X + 10, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.3, 1.5, 2.0, 7.0])
def test_linear_in_the_scale(scale: float) -> None:
    torch.testing.assert_close(guided(scale), (1 - scale) * guided(0.0) + scale * guided(1.0))


def test_by_hand() -> None:
    """Row 1 has label 1: 10 + 3 (1 - 10) = -17. Row 2 has none, so that guidance changes nothing."""
    torch.testing.assert_close(guided(3.0) - X, torch.tensor([[-20.0], [-17.0], [10.0]]).expand(3, 2))


def test_a_time_for_each_row_is_given_to_both_halves() -> None:
    seen = []

    def spy(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        seen.append((t, cond.size, len(x)))
        return predict(x, t, cond, state)

    classifier_free(spy, 2.0)(X, torch.tensor([0.1, 0.2, 0.3]), COND, None)
    classifier_free(spy, 2.0)(X, None, COND, None)
    assert seen[0][0].tolist() == pytest.approx([0.1, 0.2, 0.3] * 2)
    assert seen[1][0] is None and [s[1:] for s in seen] == [(6, 6)] * 2


def test_one_state_holds_both_halves_from_step_to_step() -> None:
    """Each half goes on from what it was fed itself, also when rows leave or start again."""
    fed: list[list[list[int]]] = []
    toy = model(lambda window: torch.tensor([float(sum(window)), 1.0]))

    def spy(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        out, state = toy(x, t, cond, state)
        fed.append([list(r) for r in state.rows])
        return out, state

    g = classifier_free(spy, 2.0)
    _, state = g(torch.tensor([[1], [2], [3]]), None, COND, None)
    state = state.select(torch.tensor([0, 2]))
    state.restart(torch.tensor([1]))
    g(torch.tensor([[4], [5]]), None, COND.select(torch.tensor([0, 2])), state)
    assert fed[0] == [[1], [2], [3]] * 2
    assert fed[1] == [[1, 4], [5]] * 2


def test_known_values_stay_in_the_unconditional_half() -> None:
    """A prefix or a hole to fill is part of the task, not of what guidance steers away from."""
    given = replace(COND, given=torch.ones(3, 2), given_mask=torch.ones(3, 2, dtype=torch.bool))

    def needs_given(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond.given is not None and cond.given_mask is not None and len(cond.given) == len(x)
        return predict(x, t, cond, state)

    classifier_free(needs_given, 2.0)(X, None, given, None)
