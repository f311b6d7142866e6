"""Which axis is what: from names, coordinates and the numbers, in any order; and an error where it is open."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import Reading, read_fields
from tests.domains.field.waves import waves

LINE = waves(12, 20, 1, (24,))[:, :, 0]  # (trajectories, time, x)
PLANE = waves(12, 20, 2, (16, 18))  # (trajectories, time, channels, x, y)


def read(path: Path, **options: Any) -> Reading:
    return read_fields(path, ReadingOptions(**options))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path / "a.npz", **arrays)
    return path / "a.npz"


def same(reading: Reading, expected: NDArray[Any]) -> None:
    values = reading.fields.values
    assert tuple(values.shape) == expected.shape
    np.testing.assert_array_equal(values[1, 3:6], expected[1, 3:6])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_numbers_tell_the_axes_apart_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", LINE.transpose(order))
    same(read(tmp_path / "a.npy"), LINE[:, :, None])


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 4, 2, 1, 0), (1, 0, 3, 4, 2), (0, 3, 4, 1, 2)])
def test_coordinates_and_what_is_left_tell_the_axes_apart(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = saved(tmp_path, u=PLANE.transpose(order), t=np.arange(20.0), x=np.arange(16) * 0.1, y=np.arange(18) * 0.2)
    reading = read(path)
    same(reading, PLANE)
    assert reading.fields.channels == ("u_0", "u_1") and reading.fields.spacing == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 3, 0, 1), (2, 0, 4, 1, 3)])
def test_axes_that_are_set_are_taken(tmp_path: Path, order: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", PLANE.transpose(order))
    names = np.asarray(["sample", "time", "channel", "x", "y"])[list(order)]
    reading = read(tmp_path / "a.npy", axes=tuple(names))
    expected = PLANE if reading.fields.axes == ("x", "y") else PLANE.swapaxes(3, 4)
    same(reading, expected)
    assert "(as set)" in " ".join(reading.decisions)


def test_a_square_is_space(tmp_path: Path) -> None:
    square = waves(12, 20, 1, (24, 24))[:, :, 0]
    np.save(tmp_path / "a.npy", square)
    same(read(tmp_path / "a.npy"), square[:, :, None])


def test_times_that_are_as_many_as_points_are_not_taken_for_space(tmp_path: Path) -> None:
    line = waves(12, 24, 1, (24,))[:, :, 0]
    np.save(tmp_path / "a.npy", line)
    same(read(tmp_path / "a.npy"), line[:, :, None])
    square = waves(12, 24, 1, (24, 24))[:, :, 0]
    np.save(tmp_path / "b.npy", square)
    same(read(tmp_path / "b.npy"), square[:, :, None])


def test_a_few_trajectories_are_told_from_channels(tmp_path: Path) -> None:
    few = waves(6, 20, 2, (24, 24))
    np.save(tmp_path / "a.npy", few)
    same(read(tmp_path / "a.npy"), few)


def test_names_of_one_field_each_are_channels(tmp_path: Path) -> None:
    path = saved(tmp_path, u=LINE, v=LINE[::-1], t=np.arange(20.0), x=np.arange(24.0))
    assert read(path).fields.channels == ("u", "v")
    assert read(path, channels=("v",)).fields.channels == ("v",)


def test_axes_that_are_alike_are_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "noise.npy", rng.normal(size=(20, 30, 40)))
    with pytest.raises(
        UserError, match=r"axes of field of noise\.npy \(20, 30, 40\): cannot.*axis 1 \(30\) is unknown"
    ) as e:
        read(tmp_path / "noise.npy")
    assert e.value.code == "axes_unclear" and "data.axes=sample,time,x" in str(e.value)
    walks = rng.normal(size=(30, 40)).cumsum(0).cumsum(1)  # smooth along both axes, and periodic along none
    np.save(tmp_path / "walks.npy", walks)
    with pytest.raises(UserError, match="cannot be told apart"):
        read(tmp_path / "walks.npy")
    both = saved(tmp_path, u=walks[:30, :30], t=np.arange(30.0), x=np.arange(30.0))
    with pytest.raises(UserError, match="cannot be told apart"):
        read(both)
    assert read(both, axes=("time", "x")).fields.space == (30,)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (("time", "x"), "names 2 axes, and field of a.npy has 3"),
        (("time", "time", "x"), "names time more than once"),
        (("sample", "time", "channel"), "names no axis of space"),
    ],
)
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, axes: tuple[str, ...], message: str) -> None:
    np.save(tmp_path / "a.npy", LINE)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.npy", axes=axes)


def test_a_plain_series_is_no_field(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100.0))
    with pytest.raises(UserError, match="A series of numbers is no field"):
        read(tmp_path / "a.npy")


# --------------------------------------------------------------------------- inputs and parameters


def test_pairs_of_an_operator_have_one_state_and_an_input(tmp_path: Path) -> None:
    permeability, pressure = waves(12, 1, 1, (16, 16), seed=1)[:, 0, 0] > 0, waves(12, 1, 1, (16, 16))[:, 0, 0]
    reading = read(saved(tmp_path, x=permeability, y=pressure))
    assert tuple(reading.fields.values.shape) == (12, 1, 1, 16, 16) and reading.fields.channels == ("y",)
    np.testing.assert_array_equal(reading.fields.static["x"], permeability.astype(np.float32))


def test_an_input_that_is_the_first_state_is_left_out(tmp_path: Path) -> None:
    reading = read(saved(tmp_path, x=LINE[:, 0], y=LINE, visc=np.array([[0.01]])))
    same(reading, LINE[:, :, None])
    assert not reading.fields.static and list(reading.fields.parameters["visc"]) == [0.01] * 12
    assert any("x is not an input but a first state of y" in d for d in reading.decisions)


def test_inputs_and_parameters_are_known_by_their_shapes(tmp_path: Path) -> None:
    forcing, mask = waves(12, 1, 1, (24,), seed=2)[:, 0, 0], np.arange(24) % 5 > 0
    path = saved(
        tmp_path, u=LINE, forcing=forcing, mask=mask, nu=np.arange(12.0), k=np.ones((12, 2)), words=np.array(["a"]),
        odd=np.ones((3, 5)), t=np.arange(20.0), x=np.arange(24.0),
    )  # fmt: skip
    reading = read(path)
    shapes = {k: v.shape for k, v in reading.fields.static.items()}
    assert shapes == {"forcing": (12, 24), "mask": (1, 24)}
    assert sorted(reading.fields.parameters) == ["k_0", "k_1", "nu"]
    assert any("odd (3, 5) is not used" in d for d in reading.decisions)
    assert any("words" in d and "no arrays of numbers" in d for d in reading.decisions)
    some = read(path, static=("mask",), parameters=("nu",)).fields
    assert list(some.static) == ["mask"] and list(some.parameters) == ["nu"]
    with pytest.raises(UserError, match=r"odd \(3, 5\) does not fit the field"):
        read(path, static=("odd",))


@pytest.mark.parametrize("option", ["channels", "static", "parameters"])
def test_names_that_do_not_exist_are_refused_with_those_that_do(tmp_path: Path, option: str) -> None:
    path = saved(tmp_path, velocity=LINE, t=np.arange(20.0), x=np.arange(24.0))
    with pytest.raises(UserError, match=rf"`data.{option}` names velocty.*Did you mean velocity\? It has velocity"):
        read(path, **{option: ("velocty",)})
