"""Every format gives the same fields, a part at a time; damaged and hostile files are refused with the reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.domains.field.fields import Span, read_states
from afresh.domains.field.reading import extras
from afresh.domains.field.reading.numpy_files import StoredArray
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import Reading, read_fields
from tests.domains.field.waves import waves

h5py = pytest.importorskip("h5py", exc_type=ImportError)
xr = pytest.importorskip("xarray", exc_type=ImportError)
pytest.importorskip("netCDF4", exc_type=ImportError)
zarr = pytest.importorskip("zarr", exc_type=ImportError)

U = waves(12, 20, 1, (24,))[:, :, 0]  # (trajectories, time, x)
T, X = np.arange(20) * 0.5, np.arange(24) * 0.25


def read(path: Path, **options: Any) -> Reading:
    return read_fields(path, ReadingOptions(**options))


def told(reading: Reading, *words: str) -> bool:
    """Whether one of the decisions has all of these words."""
    return any(all(word in decision for word in words) for decision in reading.decisions)


def check(reading: Reading, expected: NDArray[Any] = U[:, :, None]) -> None:
    fields = reading.fields
    assert tuple(fields.values.shape) == expected.shape
    for trajectory in (0, expected.shape[0] - 1):
        np.testing.assert_allclose(fields.values[trajectory, 2:5], expected[trajectory, 2:5], rtol=1e-6)
    assert read_states(fields, Span(1, 3, 2)).dtype == np.float32


def npz_stored(path: Path) -> None:
    np.savez(path, u=U, t=T, x=X)


def npz_packed(path: Path) -> None:
    np.savez_compressed(path, u=U, t=T, x=X)


def mat_5(path: Path) -> None:
    scipy.io.savemat(path, {"u": U, "t": T, "x": X, "info": {"author": "nobody"}}, do_compression=True)


def mat_7(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in (("u", U), ("t", T[None]), ("x", X[:, None])):
            file.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(128))


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=U, chunks=(1, 5, 24), compression="gzip")
        file["t"], file["x"] = T, X


def hdf5_dims(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.moveaxis(U, 0, 2)
        for i, name in enumerate(("time", "x", "member")):
            file["data"].dims[i].label = name
        file["time"], file["x"] = T, X


def netcdf(path: Path) -> None:
    dataset().to_netcdf(path)


def netcdf_3(path: Path) -> None:
    dataset().to_netcdf(path, format="NETCDF3_64BIT")


def zarr_named(path: Path) -> None:
    dataset().to_zarr(path, consolidated=False)


def zarr_plain(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    for name, array in (("u", U), ("t", T), ("x", X)):
        group.create_array(name, data=array)


def dataset() -> Any:
    return xr.Dataset({"u": (("member", "time", "x"), U, {"units": "m/s"})}, {"time": T, "x": X})


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npz", npz_stored),
        ("a.npz", npz_packed),
        ("a.mat", mat_5),
        ("a.mat", mat_7),
        ("a.h5", hdf5),
        ("a.hdf5", hdf5_dims),
        ("a.nc", netcdf),
        ("a.nc", netcdf_3),
        ("a.zarr", zarr_named),
        ("a.zarr", zarr_plain),
    ],
)
def test_every_format_gives_the_same_fields(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    for path in (tmp_path / name, tmp_path):  # the file, and the folder that it lies in
        reading = read(path)
        check(reading)
        assert reading.fields.step == pytest.approx(0.5) and reading.fields.spacing == pytest.approx((0.25,))
        assert reading.fields.periodic == (True,) and reading.fields.trajectories == 12


def test_units_of_netcdf_are_kept(tmp_path: Path) -> None:
    data = dataset()
    data.time.attrs["units"] = "hours since 2000-01-01"
    data.to_netcdf(tmp_path / "a.nc")
    reading = read(tmp_path / "a.nc")
    assert reading.fields.units == ("m/s",) and told(reading, "time between states is 0.5 hours")


def test_an_npy_is_mapped_and_its_axes_are_seen(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", U)
    reading = read(tmp_path / "a.npy")
    check(reading)
    assert told(reading, "axis 0 (12) is the trajectory", "axis 1 (20) is time", "axis 2 (24) is x")
    assert told(reading, "no times") and told(reading, "no coordinates")
    assert isinstance(reading.fields.values.pieces[0].variable.source, StoredArray)  # type: ignore[attr-defined]


def test_stored_arrays_of_an_npz_are_mapped_whatever_their_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", u=np.asfortranarray(U), t=T, x=X)
    reading = read(tmp_path / "a.npz")
    check(reading)
    assert isinstance(reading.fields.values.pieces[0].variable.source, StoredArray)  # type: ignore[attr-defined]


def test_a_folder_with_one_file_for_each_trajectory(tmp_path: Path) -> None:
    for i in range(12):
        np.savez(tmp_path / f"run_{i:02}.npz", u=U[i], t=T, x=X, nu=0.1 * i)
    (tmp_path / "README.md").write_text("waves")
    reading = read(tmp_path)
    check(reading)
    assert reading.fields.sources[3] == "run_03.npz" and [r.source for r in reading.refused] == ["README.md"]
    np.testing.assert_allclose(reading.fields.parameters["nu"], 0.1 * np.arange(12))


def test_a_folder_of_shards_and_stores(tmp_path: Path) -> None:
    for i in range(3):
        dataset().isel(member=slice(4 * i, 4 * i + 4)).to_zarr(tmp_path / f"{i}.zarr", consolidated=False)
    reading = read(tmp_path)
    check(reading)
    assert reading.fields.sources[5] == "1.zarr, trajectory 1"
    with pytest.raises(IndexError):
        reading.fields.values[12, 0:1]


# --------------------------------------------------------------------------- layouts of others


def test_the_layout_of_the_well(tmp_path: Path) -> None:
    space, values = (16, 20), waves(3, 10, 3, (16, 20))
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["simulation_parameters"] = ["Re", "name"]
        file.attrs["Re"], file.attrs["name"] = 50.0, "flow"
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = ["x", "y"]
        for name, length in (("time", 10), ("x", 16), ("y", 20)):
            dimensions[name] = np.arange(length) * 0.25
            dimensions[name].attrs["sample_varying"] = False
        for group, name, array, time in (
            ("t0_fields", "density", values[:, :, 0], True),
            ("t0_fields", "porosity", values[:, 0, 0], False),
            ("t1_fields", "velocity", np.moveaxis(values[:, :, 1:], 2, -1), True),
        ):
            made = file.require_group(group).create_dataset(name, data=array)
            made.attrs["sample_varying"], made.attrs["time_varying"] = True, time
            made.attrs["dim_varying"] = [True, True]
        file.create_group("t2_fields")
        for axis, kind in (("x", "PERIODIC"), ("y", "WALL")):
            boundary = file.create_group(f"boundary_conditions/{axis}_side")
            boundary.attrs["associated_dims"], boundary.attrs["bc_type"] = [axis], kind
        scalars = file.create_group("scalars")
        scalars["viscosity"] = [0.1, 0.2, 0.3]
        scalars["viscosity"].attrs["sample_varying"] = True
        scalars["heat"] = np.arange(10.0)
        scalars["heat"].attrs["time_varying"] = True
    reading = read(tmp_path / "a.hdf5")
    check(reading, values)
    fields = reading.fields
    assert fields.channels == ("density", "velocity_x", "velocity_y") and fields.periodic == (True, False)
    assert fields.static["porosity"].shape == (3, *space) and list(fields.parameters["viscosity"]) == [0.1, 0.2, 0.3]
    assert told(reading, "heat is not read") and told(reading, "Re is 50 throughout")
    assert read(tmp_path / "a.hdf5", channels=("velocity_y",)).fields.channels == ("velocity_y",)
    assert read(tmp_path / "a.hdf5", channels=("velocity",)).fields.channels == ("velocity_x", "velocity_y")
    assert "Re" in read(tmp_path / "a.hdf5", parameters=("Re", "viscosity")).fields.parameters


def test_the_layouts_of_pdebench(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "burgers.hdf5", "w") as file:
        file["tensor"], file["x-coordinate"] = U, X
        file["t-coordinate"] = np.arange(21) * 0.5
    reading = read(tmp_path / "burgers.hdf5")
    check(reading)
    assert reading.fields.step == 0.5 and told(reading, "one time more")

    plane = waves(10, 20, 3, (24, 24))
    with h5py.File(tmp_path / "cfd.hdf5", "w") as file:
        for i, name in enumerate(("Vx", "density", "pressure")):
            file[name] = plane[:, :, i]
        file["x-coordinate"] = file["y-coordinate"] = np.arange(24) * 0.1
        file["t-coordinate"] = np.arange(21) * 0.5
    reading = read(tmp_path / "cfd.hdf5")
    check(reading, plane)
    assert reading.fields.channels == ("Vx", "density", "pressure")

    with h5py.File(tmp_path / "water.h5", "w") as file:  # a group for each trajectory
        for i in range(10):
            file[f"{i:04}/data"] = np.moveaxis(plane[i, :, :1], 1, -1)
            file[f"{i:04}/grid/x"] = file[f"{i:04}/grid/y"] = np.arange(24) * 0.1
            file[f"{i:04}/grid/t"] = np.arange(20) * 0.5
    reading = read(tmp_path / "water.h5")
    check(reading, plane[:, :, :1])
    assert reading.fields.step == 0.5 and told(reading, "10 arrays with numbers in their names are trajectories")


def test_groups_with_grids_of_their_own_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(3):
            file[f"run{i}/u"], file[f"run{i}/x"] = U[i], X * (1 + (i == 2))
    with pytest.raises(UserError, match="x of trajectory 2 has other distances"):
        read(tmp_path / "a.h5")


# --------------------------------------------------------------------------- bad files


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", u=np.array([{"a": 1}], object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UserError, match="Python objects, which require pickle"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npy", lambda path: np.save(path, U)),
        ("a.npz", npz_packed),
        ("a.mat", mat_5),
        ("a.mat", mat_7),
        ("a.h5", hdf5),
        ("a.nc", netcdf),
        ("a.nc", netcdf_3),
    ],
)
def test_files_that_are_cut_off_are_refused(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: max(1, int(share * len(whole)))])
        with pytest.raises(UserError, match=r"There is no field that can be read(.|\n)*(damaged|cut off|declares)"):
            read(path)


def test_a_damaged_file_of_a_folder_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    for i in range(3):
        np.savez(tmp_path / f"{i}.npz", u=U[i], t=T, x=X)
    (tmp_path / "1.npz").write_bytes(b"PK nothing")
    reading = read(tmp_path)
    assert reading.fields.trajectories == 2
    assert [(r.source, r.damaged) for r in reading.refused] == [("1.npz", True)]


def test_bombs_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", (1 << 20, 1 << 20, 64), chunks=(1, 64, 64), dtype="f4")
    np.savez_compressed(tmp_path / "b.npz", u=np.zeros((17 << 20,), np.float32))
    group = zarr.open_group(tmp_path / "c.zarr", mode="w")
    group.create_array("u", shape=(1 << 20, 1 << 20, 64), chunks=(1, 64, 64), dtype="f4")
    for name in ("a.h5", "b.npz", "c.zarr"):
        with pytest.raises(UserError, match="decompression bomb"):
            read(tmp_path / name)


def test_what_is_larger_than_memory_is_refused_only_where_it_is_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afresh.data.files.available_memory", lambda: 1000.0)
    npz_packed(tmp_path / "a.npz")
    mat_5(tmp_path / "a.mat")
    for name in ("a.npz", "a.mat"):
        with pytest.raises(UserError, match=r"only as a whole: write it as \.npy, HDF5 or Zarr"):
            read(tmp_path / name)
    npz_stored(tmp_path / "b.npz")
    hdf5(tmp_path / "b.h5")
    for name in ("b.npz", "b.h5"):
        check(read(tmp_path / name))


def test_links_of_hdf5_to_other_files_are_not_followed(tmp_path: Path) -> None:
    hdf5(tmp_path / "other.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = h5py.ExternalLink("other.h5", "/u")
        file["again"] = h5py.SoftLink("/u")
    with pytest.raises(UserError, match="Arrays: none"):
        read(tmp_path / "a.h5")


def test_chunks_that_a_store_lacks_are_mentioned(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("u", data=U, chunks=(4, 20, 24))
    (tmp_path / "a.zarr" / "u" / "c" / "1" / "0" / "0").unlink()
    reading = read(tmp_path / "a.zarr", axes=("sample", "time", "x"))
    assert told(reading, "u: 1 of 3 chunks are not in the store and count as its fill value, 0")


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdf5(tmp_path / "a.h5")

    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras, "import_module", absent)
    with pytest.raises(UserError, match=r"a\.h5 is read with h5py.*pip install 'afresh\[science\]'") as caught:
        read(tmp_path / "a.h5")
    assert caught.value.code == "extra_missing"


def test_other_files_are_refused_with_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(UserError, match=r"Accepted: \.npy, \.npz"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nothing.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays")
    with pytest.raises(UserError, match="no array has an axis of space"):
        read(tmp_path / "a.npz")
