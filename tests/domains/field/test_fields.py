"""Fields: what they refuse to be, windows, and statistics in one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field import fields as module
from afresh.domains.field.fields import (
    VALID,
    Fields,
    Span,
    channel_statistics,
    chunks,
    read_windows,
    split_by_time,
    whole,
)
from tests.domains.field.waves import waves


def made(**changes: object) -> Fields:
    values = waves(4, 30, 2, (8, 10))
    plain = Fields(values, ("u", "v"), ("", "m/s"), (0.1, 0.2), 0.5, (True, True))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_shapes_that_contradict_each_other_are_no_fields() -> None:
    assert made().axes == ("x", "y") and made().space == (8, 10) and made().steps == 30
    for wrong in (
        {"channels": ("u",)},
        {"spacing": (1.0,)},
        {"periodic": (True,)},
        {"static": {"mask": np.ones((2, 8, 10))}},
        {"parameters": {"nu": np.ones(3)}},
        {"values": np.ones((4, 30, 2))},
    ):
        with pytest.raises(ValueError, match=r"values|fit"):
            made(**wrong)


def test_windows_are_the_states_that_were_asked_for() -> None:
    fields = made(values=waves(4, 30, 2, (8, 10)).astype(np.float64))
    windows = read_windows(fields, [Span(3, 5, 4), Span(0, 26, 4)])
    assert windows.dtype == np.float32 and windows.shape == (2, 4, 2, 8, 10)
    np.testing.assert_array_equal(windows[1], fields.values[0, 26:30].astype(np.float32))
    for wrong in (Span(4, 0, 1), Span(0, 28, 4), Span(0, -1, 2), Span(0, 3, 0)):
        with pytest.raises(ValueError, match="not within"):
            read_windows(fields, [wrong])
    with pytest.raises(ValueError, match="one length"):
        read_windows(fields, [Span(0, 0, 2), Span(0, 0, 3)])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e39])
def test_a_window_with_a_number_that_is_not_finite_is_refused_with_its_place(wrong: float) -> None:
    values = waves(4, 30, 2, (8, 10)).astype(np.float64)
    values[2, 7, 1, 3, 4] = wrong
    fields = made(values=values, sources=("a.npy", "b.npy", "c.npy", "d.npy"))
    assert read_windows(fields, [Span(2, 8, 3)]).shape == (1, 3, 2, 8, 10)
    with pytest.raises(UserError, match=r"c\.npy has 1 values .* v in state 7 at point \(3, 4\)"):
        read_windows(fields, [Span(2, 6, 3)])


def test_statistics_in_chunks_are_those_of_all_values(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = made()
    monkeypatch.setattr(module, "CHUNK", 7 * 2 * 8 * 10 * 4)
    assert [s.length for s in chunks(fields, [Span(1, 0, 16)])] == [7, 7, 2]
    some = channel_statistics(fields, whole(fields, [0, 2]))
    chosen = np.asarray(fields.values, np.float64)[[0, 2]]
    np.testing.assert_allclose(some.mean, chosen.mean((0, 1, 3, 4)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(some.std, chosen.std((0, 1, 3, 4)), rtol=1e-12)
    assert some.count == 2 * 30 * 80


def test_statistics_lose_no_digits_where_the_mean_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1)  # one state at a time
    small = waves(4, 30, 2, (8, 10)).astype(np.float64)
    far = channel_statistics(made(values=small + 1e9), whole(made(), range(4)))
    np.testing.assert_allclose(far.std, small.std((0, 1, 3, 4)), rtol=1e-6)


def test_points_without_values_do_not_count() -> None:
    values = waves(4, 30, 2, (8, 10))
    valid = np.ones((4, 8, 10), np.float32)
    valid[1, :5] = 0
    values[1, :, :, :5] = 1000
    known = np.broadcast_to(valid[:, None, None] > 0, values.shape)
    found = channel_statistics(made(values=values, static={VALID: valid}), whole(made(), range(4)))
    expected = [values[:, :, c][known[:, :, c]].astype(np.float64) for c in range(2)]
    np.testing.assert_allclose(found.mean, [e.mean() for e in expected], atol=1e-9)
    np.testing.assert_allclose(found.std, [e.std() for e in expected], rtol=1e-9)


def test_one_trajectory_is_split_by_time_with_a_gap() -> None:
    one = made(values=waves(1, 100, 2, (8, 10)))
    assert split_by_time(one, 0.2) == ([Span(0, 0, 75)], [Span(0, 80, 20)])
    with pytest.raises(UserError, match="too few"):
        split_by_time(made(values=waves(1, 4, 2, (8, 10))), 0.2)
