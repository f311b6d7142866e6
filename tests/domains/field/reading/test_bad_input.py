"""What is wrong with data is said with how much, where, and what to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afresh.core import UserError
from afresh.domains.field.fields import VALID
from afresh.domains.field.reading import survey as module
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import Reading, read_fields
from tests.domains.field.waves import waves

U = waves(10, 20, 2, (24,))  # (trajectories, time, channels, x)
T, X = np.arange(20) * 0.5, np.arange(24) * 0.25
AXES = ("sample", "time", "channel", "x")


def read(path: Path, **options: Any) -> Reading:
    return read_fields(path, ReadingOptions(**options))


def saved(path: Path, array: Any = U, **arrays: Any) -> Path:
    np.savez(path / "a.npz", u=array, **{"t": T, "x": X, **arrays})
    return path / "a.npz"


def told(reading: Reading, text: str) -> bool:
    return any(text in decision for decision in reading.decisions)


def changed(where: Any, value: float, array: Any = U) -> Any:
    out = array.copy()
    out[where] = value
    return out


# --------------------------------------------------------------------------- missing values


def test_missing_values_are_counted_and_placed(tmp_path: Path) -> None:
    path = saved(tmp_path, changed((3, 5, 1, slice(7, 9)), np.nan))
    with pytest.raises(UserError, match=r"u_1 2 of 4,800 \(0\.04%\).*u_1 of a.npz, trajectory 3, state 5, x 7") as e:
        read(path)
    assert "data.missing=mask" in str(e.value) and e.value.code == "values_missing"
    with pytest.raises(UserError, match="some are missing only in a part of the states"):
        read(path, missing="mask")
    assert read(path, channels=("u_0",)).fields.channels == ("u_0",)


@pytest.mark.parametrize("every", [True, False])
def test_points_that_are_always_missing_can_be_masked(tmp_path: Path, every: bool) -> None:
    which = slice(None) if every else slice(2, 4)
    reading = read(saved(tmp_path, changed((which, slice(None), slice(None), slice(3, 6)), np.inf)), missing="mask")
    fields = reading.fields
    mask = fields.static[VALID]
    assert mask.shape == ((1 if every else 10), 24) and mask[-1 if every else 2, 3:6].sum() == 0
    assert mask.sum() == mask.size - 3 * (1 if every else 2)
    known = np.isfinite(changed((which, slice(None), slice(None), slice(3, 6)), np.nan))
    mean = U[:, :, 0][known[:, :, 0]].mean()
    np.testing.assert_allclose(fields.values[3, 0:2][:, 0, 4], mean, atol=1e-6)
    assert told(reading, "of the points are missing in every state")


def test_numbers_that_stand_for_missing_ones_are_known_or_asked_about(tmp_path: Path) -> None:
    path = saved(tmp_path, changed((slice(None), slice(None), slice(None), 4), -9999))
    with pytest.raises(UserError, match=r"200 values of u_0 are -9999, and the others lie between .*data.fill=-9999"):
        read(path)
    with pytest.raises(UserError, match="Values are missing"):
        read(path, fill=(-9999.0,))
    assert VALID in read(path, fill=(-9999.0,), missing="mask").fields.static
    assert float(read(path, fill=(float("nan"),)).fields.values[0, 0:1].min()) == -9999  # they are true values


def test_declared_fill_values_and_packed_numbers(tmp_path: Path) -> None:
    xr = pytest.importorskip("xarray", exc_type=ImportError)
    h5py = pytest.importorskip("h5py", exc_type=ImportError)
    packing = {"dtype": "int16", "scale_factor": 0.001, "add_offset": 2.0, "_FillValue": -32768}
    data = xr.Dataset({"u": (("member", "time", "x"), U[:, :, 0] + 2)}, {"time": T, "x": X})
    data.to_netcdf(tmp_path / "a.nc", encoding={"u": packing})
    data.to_zarr(tmp_path / "a.zarr", encoding={"u": packing}, consolidated=False)
    stored = np.round(U[:, :, 0] / 0.001).astype(np.int16)
    for name, numbers in (("a.h5", stored), ("b.h5", changed((1, 2, 3), -32768, stored))):
        with h5py.File(tmp_path / name, "w") as file:
            file["u"], file["t"], file["x"] = numbers, T, X
            file["u"].attrs.update({k: v for k, v in packing.items() if k != "dtype"})
    for name in ("a.nc", "a.zarr", "a.h5"):
        reading = read(tmp_path / name)
        np.testing.assert_allclose(reading.fields.values[2, 3:5][:, 0], U[2, 3:5, 0] + 2, atol=6e-4)
        assert told(reading, "scale_factor 0.001")
    data.u[1, 2, 3] = np.nan
    data.to_netcdf(tmp_path / "b.nc", encoding={"u": packing})
    for name in ("b.h5", "b.nc"):
        with pytest.raises(UserError, match="u 1 of 4,800"):
            read(tmp_path / name)


def test_of_much_data_a_part_is_looked_at_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", U.nbytes // 4)
    reading = read(saved(tmp_path), axes=AXES)
    assert told(reading, "50 of 200 states were looked at for missing values")


# --------------------------------------------------------------------------- times and coordinates


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.r_[T[:10], T[9:19]], r"1 time occurs twice in a row, first 4\.5 in states 9 and 10"),
        (np.r_[T[10:], T[:10]], r"not sorted: 9\.5 in state 9 is followed by 0"),
        (T[::-1], "go backwards"),
        (T**2, "time steps are uneven, from 0.25 to 9.25"),
        (np.r_[T[:19], np.nan], "1 of 20 coordinates are missing"),
    ],
)
def test_times_that_are_no_even_steps_are_refused_unless_a_step_is_set(
    tmp_path: Path, times: Any, message: str
) -> None:
    path = saved(tmp_path, t=times)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert "data.step" in str(caught.value)
    assert read(path, step=0.5).fields.step == 0.5


def test_times_of_32_bits_are_even(tmp_path: Path) -> None:
    assert read(saved(tmp_path, t=(1000 + T * 0.01).astype(np.float32))).fields.step == pytest.approx(0.005, rel=1e-2)


def test_uneven_points_become_an_input(tmp_path: Path) -> None:
    reading = read(saved(tmp_path, x=X**2))
    np.testing.assert_allclose(reading.fields.static["coordinate_x"], (X**2)[None], rtol=1e-6)
    assert told(reading, "x is spaced unevenly") and read(saved(tmp_path, x=X[::-1])).fields.spacing == (0.25,)
    with pytest.raises(UserError, match="neither rise nor fall"):
        read(saved(tmp_path, x=np.abs(X - 2)))
    assert read(saved(tmp_path, x=np.abs(X - 2)), spacing=(0.1,)).fields.spacing == (0.1,)
    with pytest.raises(UserError, match="does not fit the axes of space x"):
        read(saved(tmp_path), spacing=(0.1, 0.2))


# --------------------------------------------------------------------------- boundaries


def test_periodic_axes_are_seen_and_can_be_set(tmp_path: Path) -> None:
    plane = waves(10, 20, 1, (32, 30))[..., :20]  # cut off along y
    np.save(tmp_path / "a.npy", plane)
    axes = ("sample", "time", "channel", "x", "y")
    reading = read(tmp_path / "a.npy", axes=axes)
    assert reading.fields.periodic == (True, False) and told(reading, "y: not periodic: the bend across its ends")
    assert read(tmp_path / "a.npy", axes=axes, periodic=("no",)).fields.periodic == (False, False)
    assert read(tmp_path / "a.npy", axes=axes, periodic=("no", "yes")).fields.periodic == (False, True)
    with pytest.raises(UserError, match="has 3 answers, and space has 2 axes"):
        read(tmp_path / "a.npy", axes=axes, periodic=("no", "yes", "no"))


def test_a_point_that_repeats_the_first_is_left_out(tmp_path: Path) -> None:
    doubled = np.concatenate([U, U[..., :1]], -1)
    reading = read(saved(tmp_path, doubled, x=np.arange(25) * 0.25, mask=np.ones(25)))
    assert reading.fields.space == (24,) and told(reading, "the last of 25 points repeats the first one")
    assert reading.fields.static["mask"].shape == (1, 24)
    np.testing.assert_array_equal(reading.fields.values[2, 0:3], U[2, :3])
    assert read(saved(tmp_path, doubled, x=np.arange(25) * 0.25), periodic=("no",)).fields.space == (25,)


def test_longitudes_around_the_earth_are_periodic_and_latitudes_are_not(tmp_path: Path) -> None:
    earth = waves(6, 20, 1, (18, 36))[:, :, 0]
    earth[..., :3, :4] = np.nan  # across the seam, and at a pole
    around = {"lat": np.linspace(85, -85, 18), "lon": np.arange(36) * 10.0, "t": T}
    np.savez(tmp_path / "a.npz", u=earth, **around)
    reading = read(tmp_path / "a.npz", missing="mask")
    assert reading.fields.axes == ("lat", "lon") and reading.fields.periodic == (False, True)
    assert told(reading, "lon: periodic: 36 points 10 degrees apart")
    np.savez(tmp_path / "a.npz", u=earth[..., :30], **{**around, "lon": np.arange(30) * 10.0})
    assert read(tmp_path / "a.npz", missing="mask").fields.periodic == (False, False)


# --------------------------------------------------------------------------- values


def test_a_single_trajectory_is_said_to_be_split_by_time(tmp_path: Path) -> None:
    reading = read(saved(tmp_path, U[0, :, 0]))
    assert reading.fields.trajectories == 1 and told(reading, "there is one trajectory: its end is held out")


def test_constant_channels_are_left_out_with_a_word(tmp_path: Path) -> None:
    path = saved(tmp_path, changed((slice(None), slice(None), 1), 3.0))
    reading = read(path, axes=AXES)
    assert reading.fields.channels == ("u_0",) and told(reading, "u_1 is not learnt: it is 3 everywhere")
    assert tuple(reading.fields.values.shape) == (10, 20, 1, 24)
    with pytest.raises(UserError, match="Nothing changes: u_1 has one value everywhere"):
        read(path, axes=AXES, channels=("u_1",))


def test_complex_values_are_two_channels(tmp_path: Path) -> None:
    reading = read(saved(tmp_path, (U[:, :, 0] + 1j * U[:, :, 1]).astype(np.complex64)))
    assert reading.fields.channels == ("u_real", "u_imaginary") and told(reading, "u is complex")
    np.testing.assert_array_equal(reading.fields.values[1, 2:4], U[1, 2:4])


def test_whole_numbers_and_numbers_that_are_too_large(tmp_path: Path) -> None:
    whole_numbers = (U * 1000).astype(np.int32)
    reading = read(saved(tmp_path, whole_numbers))
    assert reading.fields.values.dtype == np.float64 and told(reading, "u holds whole numbers (int32)")
    with pytest.raises(UserError, match=r"u_\d reaches .*, beyond the numbers of 32 bits"):
        read(saved(tmp_path, U.astype(np.float64) * 1e39))


def test_an_input_with_a_hole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 of 24 values of the input mask are missing"):
        read(saved(tmp_path, mask=np.r_[np.nan, np.ones(23)]))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"u": U[1, ..., :20], "x": X[:20]}, "b.npz has the grid 20, and a.npz 24"),
        ({"u": U[1, :15], "t": T[:15]}, "b.npz has this number of states 15, and a.npz 20"),
        ({"u": U[1], "x": 2 * X}, "b.npz has the distance along x 0.5, and a.npz 0.25"),
        ({"u": U[1], "t": 2 * T}, "b.npz has the distance along time 1, and a.npz 0.5"),
        ({"v": U[1]}, "b.npz has the channels v_0, v_1, and a.npz u_0, u_1"),
    ],
)
def test_files_that_do_not_agree_are_named(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", u=U[0], t=T, x=X)
    np.savez(tmp_path / "b.npz", **{"t": T, "x": X, **other})
    with pytest.raises(UserError, match=message):
        read(tmp_path)
