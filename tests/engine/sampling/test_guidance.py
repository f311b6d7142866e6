"""Guidance is linear in its scale: between unconditional and conditional, weak and strong models, and part by part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.engine.sampling.guidance import autoguidance, classifier_free, compose_guidance, interval
from tests.engine.sampling.fed import model

COND = Cond(3, {"label": torch.tensor([0, 1, 2])}, {"label": torch.tensor([True, True, False])})
X = torch.arange(6.0).view(3, 2)


def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
    """x + 10 for a row without its label, x + label with it; the state counts rows."""
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


def test_guidance_by_hand() -> None:
    """Row 1 has label 1: 10 + 3 (1 - 10) = -17. Row 2 has none, so that guidance changes nothing."""
    torch.testing.assert_close(guided(3.0) - X, torch.tensor([[-20.0], [-17.0], [10.0]]).expand(3, 2))


def test_a_time_for_each_row_is_passed_to_both_halves() -> None:
    seen = []

    def spy(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        seen.append((t, cond.size, len(x)))
        return predict(x, t, cond, state)

    classifier_free(spy, 2.0)(X, torch.tensor([0.1, 0.2, 0.3]), COND, None)
    classifier_free(spy, 2.0)(X, None, COND, None)
    assert seen[0][0].tolist() == pytest.approx([0.1, 0.2, 0.3] * 2)
    assert seen[1][0] is None and [s[1:] for s in seen] == [(6, 6)] * 2


def test_one_state_holds_both_halves_from_step_to_step() -> None:
    """Each half continues from its own tokens, also when rows leave or restart."""
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
    """A prompt or a hole is part of the task and not of the condition that guidance leads away from."""
    given = replace(COND, known=torch.ones(3, 2), known_mask=torch.ones(3, 2, dtype=torch.bool))

    def needs_given(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond.known is not None and cond.known_mask is not None and len(cond.known) == len(x)
        return predict(x, t, cond, state)

    classifier_free(needs_given, 2.0)(X, None, given, None)


# --------------------------------------------------------------------------- parts, each with its weight

ALL = torch.ones(3, dtype=torch.bool)
PARTS = Cond(
    3,
    {"label": torch.tensor([0, 1, 2]), "age": torch.tensor([0.5, -1.0, 2.0])},
    {"label": ALL, "age": torch.tensor([True, True, False])},
)


class Sums:
    """x + 10 + label - age + label * age of the parts that are present; counts calls and rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        self.rows.append(len(x))
        label = cond.parts["label"].float() * cond.present["label"]
        age = cond.parts["age"] * cond.present["age"]
        return x + (10 + label - age + label * age)[:, None], state


def value(of: Any, cond: Cond = PARTS) -> Tensor:
    """The shift of each row."""
    return (of(X, torch.tensor(0.5), cond, None)[0] - X)[:, 0]


def test_each_part_has_its_own_scale() -> None:
    """null + 3 (only label - null) + 2 (only age - null): the interaction of the parts has no influence. By hand: 10
    + 3 label - 2 age."""
    net = Sums()
    expected = torch.tensor([10 + 0 - 1.0, 10 + 3 + 2.0, 10 + 6 - 0.0])
    torch.testing.assert_close(value(compose_guidance(net, {"label": 3.0, "age": 2.0})), expected)
    assert net.rows == [9]  # two terms and null, in one batch


def test_parts_without_a_weight_form_one_term() -> None:
    """10 + 3 label - 1.5 age, where age has the general scale; a negative weight reverses a part."""
    expected = torch.tensor([10 + 0 - 0.75, 10 + 3 + 1.5, 10 + 6 - 0.0])
    torch.testing.assert_close(value(compose_guidance(Sums(), {"label": 3.0}, 1.5)), expected)
    turned = torch.tensor([10 - 0 - 0.5, 10 - 1 + 1.0, 10 - 2 - 0.0])
    torch.testing.assert_close(value(compose_guidance(Sums(), {"label": -1.0})), turned)


def test_without_weights_it_is_plain_guidance() -> None:
    torch.testing.assert_close(
        value(compose_guidance(Sums(), {}, 2.5)), value(classifier_free(Sums(), 2.5)), rtol=0, atol=0
    )
    net = Sums()
    assert compose_guidance(net, {}, 1.0) is net


def test_a_single_part_by_weight_is_plain_guidance() -> None:
    by_weight = compose_guidance(predict, {"label": 2.5})(X, 0.5, COND, None)[0]
    torch.testing.assert_close(by_weight, guided(2.5), rtol=0, atol=0)


def test_an_unknown_part_is_refused_naming_those_known() -> None:
    with pytest.raises(UserError, match=r"colour.*label, age"):
        value(compose_guidance(Sums(), {"colour": 2.0}))


# --------------------------------------------------------------------------- steering away


def test_a_negative_request_takes_the_place_of_null() -> None:
    """negative + 3 (conditional - negative), and likewise for parts with their own weights."""
    asked = Cond(3, {"label": torch.tensor([2, 2, 2])}, {"label": ALL})
    label = torch.tensor([0.0, 1.0, 10.0])  # the third row has none
    found = classifier_free(predict, 3.0)(X, 0.5, replace(COND, negative=asked), None)[0] - X
    torch.testing.assert_close(found[:, 0], 2 + 3 * (label - 2))
    away = Cond(3, {"label": torch.ones(3, dtype=torch.int64), "age": torch.zeros(3)}, {"label": ALL, "age": ~ALL})
    both = value(compose_guidance(Sums(), {"label": 3.0, "age": 2.0}), replace(PARTS, negative=away))
    # 11 + 3 (10 + label - 11) + 2 (10 - age - 11)
    torch.testing.assert_close(both, torch.tensor([11 - 3 - 3.0, 11 + 0 + 0.0, 11 + 3 - 2.0]))


def test_the_negative_half_sees_what_is_known() -> None:
    given = replace(COND, known=torch.ones(3, 2), known_mask=torch.ones(3, 2, dtype=torch.bool), negative=COND)

    def needs_given(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        assert cond.known is not None and len(cond.known) == len(x)
        return predict(x, t, cond, state)

    classifier_free(needs_given, 2.0)(X, None, given, None)


# --------------------------------------------------------------------------- a weaker model, and when to guide


def scaled(factor: float) -> Any:
    return lambda x, t, cond, state: (factor * x, state)


def test_autoguidance_is_a_line_through_the_weak_and_the_strong_model() -> None:
    strong = scaled(2.0)
    assert autoguidance(strong, scaled(1.5), 1.0) is strong
    found = autoguidance(strong, scaled(1.5), 3.0)(X, 0.5, COND, None)[0]
    torch.testing.assert_close(found, (1.5 + 3 * 0.5) * X)
    assert torch.equal(autoguidance(strong, scaled(1.5), 0.0)(X, 0.5, COND, None)[0], 1.5 * X)


def test_autoguidance_wraps_other_guidance() -> None:
    both = autoguidance(classifier_free(predict, 2.0), scaled(1.0), 3.0)(X, 0.5, COND, None)[0]
    torch.testing.assert_close(both, X + 3 * (guided(2.0) - X))


def test_guidance_is_only_evaluated_within_its_interval() -> None:
    net = Sums()
    limited = interval(classifier_free(net, 2.0), net, 0.25, 0.5)
    for t, rows in ((0.0, 3), (0.25, 6), (0.4, 6), (0.5, 6), (0.51, 3), (1.0, 3)):
        net.rows.clear()
        found = limited(X, torch.full((3,), t), PARTS, None)[0]
        expected = (classifier_free(Sums(), 2.0) if rows == 6 else Sums())(X, torch.full((3,), t), PARTS, None)[0]
        assert net.rows == [rows] and torch.equal(found, expected)


def test_rows_are_guided_according_to_their_times() -> None:
    t = torch.tensor([0.1, 0.4, 0.9])
    found = interval(classifier_free(Sums(), 2.0), Sums(), 0.25, 0.5)(X, t, PARTS, None)[0]
    plain, full = Sums()(X, t, PARTS, None)[0], classifier_free(Sums(), 2.0)(X, t, PARTS, None)[0]
    assert torch.equal(found, torch.stack([plain[0], full[1], plain[2]]))


def test_an_interval_of_all_times_adds_no_wrapper() -> None:
    net = Sums()
    full = classifier_free(net, 2.0)
    assert interval(full, net) is full and interval(net, net, 0.2, 0.3) is net


def test_a_negative_in_the_request_itself_takes_the_place_of_null() -> None:
    """For each row: row 1 asks for 1 with the negative 2, 2 + 3 (1 - 2) = -1."""
    unwanted = replace(COND, parts={"label": torch.tensor([2, 2, 2])}, present={"label": torch.ones(3).bool()})
    cond = replace(COND, negative=unwanted)
    for way in (classifier_free(predict, 3.0), compose_guidance(predict, {"label": 3.0})):
        shift = way(X, 0.5, cond, None)[0] - X
        torch.testing.assert_close(shift, torch.tensor([[-4.0], [-1.0], [26.0]]).expand(3, 2))
