"""Fields: what they refuse to be, and how their states are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field import fields as module
from afresh.domains.field.fields import Fields, Span, chunks, read_states, split_by_time
from tests.domains.field.waves import waves


def made(**changes: object) -> Fields:
    values = waves(4, 30, 2, (8, 10))
    plain = Fields(values, ("u", "v"), ("", "m/s"), (0.1, 0.2), 0.5, (True, True))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_axes_without_names_are_x_and_y() -> None:
    assert made().axes == ("x", "y") and made().space == (8, 10) and made().steps == 30


def test_states_are_those_that_were_asked_for() -> None:
    fields = made(values=waves(4, 30, 2, (8, 10)).astype(np.float64), parameters={"nu": np.arange(4.0)})
    states = read_states(fields, Span(2, 26, 4))
    assert states.dtype == np.float32
    np.testing.assert_array_equal(states, fields.values[2, 26:30].astype(np.float32))
    drawn = read_states(fields, Span(2, 26, 4), ("nu",))
    np.testing.assert_array_equal(drawn[:, :2], states)
    assert drawn.shape == (4, 3, 8, 10) and (drawn[:, 2] == 2).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e39])
def test_a_state_with_a_number_that_is_not_finite_is_refused_with_its_place(wrong: float) -> None:
    values = waves(4, 30, 2, (8, 10)).astype(np.float64)
    values[2, 7, 1, 3, 4] = wrong
    fields = made(values=values, sources=("a.npy", "b.npy", "c.npy", "d.npy"))
    assert read_states(fields, Span(2, 8, 3)).shape == (3, 2, 8, 10)
    with pytest.raises(UserError, match=r"c\.npy has 1 values .* v in state 7 at point \(3, 4\)"):
        read_states(fields, Span(2, 6, 3))


def test_chunks_are_the_same_states_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 7 * 2 * 8 * 10 * 4)
    assert [(s.first, s.length) for s in chunks(made(), [Span(1, 0, 16)])] == [(0, 7), (7, 7), (14, 2)]


def test_one_trajectory_is_split_by_time_with_a_gap() -> None:
    one = made(values=waves(1, 100, 2, (8, 10)))
    assert split_by_time(one, 0.2) == ([Span(0, 0, 75)], [Span(0, 80, 20)])
    with pytest.raises(UserError, match="too few"):
        split_by_time(made(values=waves(1, 4, 2, (8, 10))), 0.2)
