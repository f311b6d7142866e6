"""Every format gives the same fields, a part at a time; damaged and hostile files are refused with the reason."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.data.files import DataFile, FileError
from afresh.domains.field.fields import Span, read_states
from afresh.domains.field.modality import FieldModality
from afresh.domains.field.reading import extras
from afresh.domains.field.reading.contents import Variable
from afresh.domains.field.reading.files import open_contents
from afresh.domains.field.reading.hdf5 import Stored
from afresh.domains.field.reading.matlab import COMPLEX, _declared
from afresh.domains.field.reading.numpy_files import StoredArray
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import Reading, read_fields
from afresh.faces.cli import run as command
from tests.domains.field.waves import waves

h5py = pytest.importorskip("h5py", exc_type=ImportError)
xr = pytest.importorskip("xarray", exc_type=ImportError)
pytest.importorskip("netCDF4", exc_type=ImportError)
zarr = pytest.importorskip("zarr", exc_type=ImportError)
numcodecs = pytest.importorskip("numcodecs", exc_type=ImportError)

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
        with pytest.raises(UserError, match=r"No field that can be read(.|\n)*(damaged|cut off|declares)"):
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
    with pytest.raises(UserError, match="u is a link to another file"):
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


# --------------------------------------------------------------------------- hostile files

BOMB = 1 << 20  # bytes that a chunk unpacks to, whose array declares U.nbytes
ZEROS = bytes(BOMB)


def external(file: Any, folder: Path) -> None:
    (folder / "secret").write_bytes(U.tobytes())
    file.create_dataset("u", U.shape, U.dtype, external=[(str(folder / "secret"), 0, U.nbytes)])


def virtual(file: Any, folder: Path) -> None:
    hdf5(folder / "other")
    layout = h5py.VirtualLayout(U.shape, U.dtype)
    layout[...] = h5py.VirtualSource(folder / "other", "u", U.shape)
    file.create_virtual_dataset("u", layout)


def linked(file: Any, folder: Path) -> None:
    hdf5(folder / "other")
    file["u"] = h5py.ExternalLink(str(folder / "other"), "/u")


def plain(file: Any, folder: Path) -> None:
    """An array that `hdf5_as` describes, beside one in a group that is stored elsewhere."""
    file["u"] = U
    external(file.create_group("inner"), folder)


def hdf5_as(suffix: str, path: Path, write: Callable[[Any, Path], None], **options: Any) -> None:
    """A file of HDF5 as its other formats have it: with scales as in NetCDF 4, with classes as in MATLAB 7.3."""
    folder = path.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    block = {"userblock_size": 512} if suffix in (".mat", ".user.nc") else {}
    with h5py.File(path, "w", **block) as file:
        write(file, folder)
        for name, scale in (("member", np.arange(12.0)), ("time", T), ("x", X)):
            file[name] = scale
            file[name].make_scale(name)
        if file.get("u", getlink=True).__class__ is h5py.HardLink:
            file["u"].attrs["MATLAB_class"] = np.bytes_("double")
            for axis, name in enumerate(("member", "time", "x")):
                file["u"].dims[axis].attach_scale(file[name])
    if suffix == ".mat":
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file".ljust(128))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (external, "u is stored externally"),
        (plain, "inner/u is stored externally"),
        (virtual, "u is virtual"),
        (linked, "u is a link to another file"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".mat", ".nc", ".user.nc"])
def test_an_hdf5_file_reads_no_other_file(
    tmp_path: Path, suffix: str, write: Callable[[Any, Path], None], reason: str
) -> None:
    path = tmp_path / f"a{suffix}"
    hdf5_as(suffix, path, write)
    with pytest.raises(UserError, match=f"No field that can be read(.|\n)*{reason}"):
        read(path)
    with pytest.raises(FileError, match=reason):  # as every entrance opens it
        open_contents(DataFile(path, path.name, 0))


def test_filters_that_are_not_built_into_hdf5_or_pack_what_is_packed_are_refused(tmp_path: Path) -> None:
    def packed(*filters: tuple[int, tuple[int, ...]]) -> Path:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4, 20, 24))
        for code, values in filters:
            properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, values)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            space = h5py.h5s.create_simple(U.shape)
            h5py.h5d.create(file.id, b"u", h5py.h5t.NATIVE_FLOAT, space, properties)
        return tmp_path / "a.h5"

    for filters, reason in (
        ([(32015, (3,))], "filter 32015, which is not built into HDF5"),
        ([(1, (6,)), (1, (6,))], "has the filters zlib, zlib"),
        ([(1, (6,)), (2, ())], "has the filters zlib, shuffle"),
    ):
        with pytest.raises(UserError, match=reason):
            read(packed(*filters))


def test_a_group_whose_members_are_packed_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
        h5py.h5i.inc_ref(properties)
        h5py.h5p.PropDCID(properties.id).set_deflate(9)
        h5py.h5g.create(file.id, b"inner", gcpl=properties)
        file["u"] = U
    with pytest.raises(UserError, match="the group /inner has a filter"):
        read(tmp_path / "a.h5")


def test_a_group_is_read_once_whatever_leads_to_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"], file["t"], file["x"] = U, T, X
        group = file.create_group("inner")
        group["root"] = file["/"]
        for level in range(15):  # 4 ** 15 paths
            outer = file.create_group(f"outer{level}")
            for link in range(4):
                outer[f"inner{link}"] = group
            group = outer
    check(read(tmp_path / "a.h5"))
    (tmp_path / "a.h5").rename(tmp_path / "a.nc")  # whose library follows each path, and aborts
    with pytest.raises(UserError, match="is a second name of something in the file: remove the link"):
        read(tmp_path / "a.nc")


def in_hdf5(codec: str, packed: bytes, place: str = "u") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        def arrays(file: Any, folder: Path) -> None:
            file.create_dataset("u", U.shape, "f8", chunks=U.shape, compression=codec).id.write_direct_chunk(
                (0, 0, 0), packed
            )

        hdf5_as(path.suffix, path, arrays)

    return write


def in_coordinate(path: Path) -> None:
    """A bomb in a coordinate, which the library of NetCDF reads when it opens a file."""
    dataset().to_netcdf(path, encoding={"time": {"zlib": True, "chunksizes": (20,)}})
    with h5py.File(path, "r+") as file:
        file["time"].id.write_direct_chunk((0,), zlib.compress(ZEROS))


def in_zarr(packed: bytes, version: int = 3, **options: Any) -> Callable[[Path], None]:
    """A bomb in the first chunk, or as each chunk of a shard."""

    def write(path: Path) -> None:
        options.setdefault("chunks", U.shape)
        array = zarr.open_group(path, mode="w", zarr_format=version).create_array(
            "u", shape=U.shape, dtype="f4", **options
        )
        array[:] = U
        chunk = next(p for p in sorted((path / "u").rglob("*")) if p.is_file() and p.name[0] in "c0")
        index = struct.pack("<QQ", 0, len(packed)) * 3 if "shards" in options else b""
        sealed = bytes(numcodecs.CRC32C(location="end").encode(index)) if index else b""
        chunk.write_bytes(packed + sealed)

    return write


def in_mat(name: int, values: int) -> Callable[[Path], None]:
    """A packed array of 2 x 2 numbers in MATLAB 5, with so many bytes of a name, and of values."""

    def write(path: Path) -> None:
        scipy.io.savemat(path, {"u": np.zeros((2, 2))})
        parts = [(6, struct.pack("<II", 6, 0)), (5, struct.pack("<ii", 2, 2)), (1, b"u" * name), (2, bytes(values))]
        body = b"".join(struct.pack("<II", kind, len(part)) + part for kind, part in parts)
        packed = zlib.compress(struct.pack("<II", 14, len(body)) + body)
        path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed)

    return write


ZSTD, GZIP, BLOSC = numcodecs.Zstd().encode(ZEROS), gzip.compress(ZEROS), numcodecs.Blosc().encode(ZEROS)
LZF = b"\x00\x00" + b"\xe0\xff\x00" * (BOMB // 264)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.h5", in_hdf5("gzip", zlib.compress(ZEROS))),
        ("a.h5", in_hdf5("lzf", LZF * 20)),
        ("a.h5", in_hdf5("szip", struct.pack("<I", BOMB) + bytes(100))),
        ("a.mat", in_hdf5("gzip", zlib.compress(ZEROS))),
        ("a.nc", in_hdf5("gzip", zlib.compress(ZEROS))),
        ("a.nc", in_coordinate),
        ("a.mat", in_mat(8, BOMB)),
        ("a.zarr", in_zarr(GZIP, compressors=zarr.codecs.GzipCodec())),
        ("a.zarr", in_zarr(ZSTD, compressors=zarr.codecs.ZstdCodec())),
        ("a.zarr", in_zarr(BLOSC, compressors=zarr.codecs.BloscCodec())),
        ("a.zarr", in_zarr(ZSTD, compressors=zarr.codecs.ZstdCodec(), chunks=(4, 20, 24), shards=U.shape)),
        ("a.zarr", in_zarr(GZIP, 2, compressors=numcodecs.GZip())),
        ("a.zarr", in_zarr(zlib.compress(ZEROS), 2, compressors=numcodecs.Zlib())),
        ("a.zarr", in_zarr(numcodecs.LZ4().encode(ZEROS), 2, compressors=numcodecs.LZ4())),
        ("a.zarr", in_zarr(ZSTD + ZSTD, 2, compressors=numcodecs.Zstd())),
        ("a.zarr", in_zarr(BLOSC, 2, compressors=numcodecs.Blosc())),
    ],
)
def test_a_chunk_unpacks_to_no_more_than_its_array_declares(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    axes = ("x", "time", "sample") if name.endswith(".mat") else ("sample", "time", "x")
    with pytest.raises(UserError, match=r"No field(.|\n)*more than the [\d,]+ bytes.*: a decompression bomb"):
        read(tmp_path / name, axes=axes)


def test_a_name_in_a_mat_is_not_unpacked_without_end(tmp_path: Path) -> None:
    in_mat(BOMB, 32)(tmp_path / "a.mat")
    with pytest.raises(UserError, match="the name or the dimensions of an array take over 4,096 bytes"):
        read(tmp_path / "a.mat")


def test_a_file_with_a_bomb_is_refused_and_the_others_of_its_folder_are_read(tmp_path: Path) -> None:
    for name in ("0.h5", "2.h5"):
        hdf5(tmp_path / name)
    in_hdf5("gzip", zlib.compress(ZEROS))(tmp_path / "1.h5")
    (tmp_path / "elsewhere").rmdir()
    with h5py.File(tmp_path / "1.h5", "r+") as file:
        file["t"] = T
        del file["time"], file["member"]
    reading = read(tmp_path)
    assert reading.fields.trajectories == 24
    assert [(r.source, "decompression bomb" in r.reason, r.damaged) for r in reading.refused] == [("1.h5", True, True)]


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is measured as on Linux")
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(ZEROS) for _ in range(300)) + packer.flush()
    in_hdf5("gzip", packed)(tmp_path / "a.h5")
    in_zarr(packed, 2, compressors=numcodecs.Zlib())(tmp_path / "a.zarr")
    program = f"""
from pathlib import Path
from tests.peak import peak_memory
from tests.domains.field.reading.test_formats import UserError, read
held = peak_memory()
for name in ("a.h5", "a.zarr"):
    try:
        read(Path({str(tmp_path)!r}) / name, axes=("sample", "time", "x"))
    except UserError as error:
        assert "decompression bomb" in str(error), error
assert peak_memory() - held < 200 << 20, peak_memory() - held
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def store(path: Path, version: int = 3, **options: Any) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, array in (("u", U), ("t", T), ("x", X)):
        group.create_array(name, data=array, **(options if name == "u" else {}))
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("what", ["chunk", "folder", "metadata", "environment"])
def test_links_in_a_zarr_store_are_not_followed(tmp_path: Path, version: int, what: str) -> None:
    chunk = "u/0.0.0" if version == 2 else "u/c/0/0/0"
    path, other = store(tmp_path / "a.zarr", version, chunks=U.shape), store(tmp_path / "b", version, chunks=U.shape)
    link = path / {"folder": "u", "metadata": "u/.zarray" if version == 2 else "u/zarr.json"}.get(what, chunk)
    (shutil.rmtree if link.is_dir() else Path.unlink)(link)
    link.symlink_to("/proc/self/environ" if what == "environment" else other / link.relative_to(path))
    with pytest.raises(UserError, match="is, or lies below, a symbolic link"):
        read(path, axes=("sample", "time", "x"))


def changed_metadata(path: Path, name: str, **values: Any) -> None:
    metadata = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps(metadata | values))


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
INDEX = [BYTES, {"name": "crc32c"}]


def sharded(codecs: list[Any], index: list[Any]) -> dict[str, Any]:
    layout = {"chunk_shape": [4, 20, 24], "codecs": codecs, "index_codecs": index}
    return {"name": "sharding_indexed", "configuration": layout}


@pytest.mark.parametrize(
    ("version", "values", "reason"),
    [
        (2, {"compressor": {"id": "pickle"}}, "u is stored with the codec pickle. Accepted: blosc"),
        (2, {"filters": [{"id": "pickle", "protocol": 5}]}, "u is stored with the codec pickle"),
        (2, {"filters": [{"id": "vlen-bytes"}]}, "u is stored with the codec vlen-bytes"),
        (2, {"filters": [{"id": "gzip", "level": 1}]}, "u is stored with the codec gzip. Accepted: shuffle"),
        (2, {"filters": [{"id": "delta", "dtype": "<f8", "astype": "<i1"}]}, "with the codec delta"),
        (3, {"codecs": [BYTES, {"name": "numcodecs.pickle"}]}, "u is stored with the codec numcodecs.pickle"),
        (
            3,
            {"codecs": [BYTES, {"name": "gzip", "configuration": {"level": 1}}, "zstd"]},
            "packs the output of another",
        ),
        (3, {"codecs": [sharded([BYTES, {"name": "numcodecs.pickle"}], INDEX)]}, "the codec numcodecs.pickle"),
        (3, {"codecs": [sharded([sharded([BYTES], INDEX)], INDEX)]}, "the codec sharding_indexed"),
        (3, {"codecs": [sharded([BYTES], [BYTES, "gzip"])]}, "have an index with bytes, gzip"),
        (3, {"chunk_grid": {"name": "ragged"}}, "on a grid that is ragged"),
    ],
)
def test_other_codecs_are_refused_before_the_library_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, values: dict[str, Any], reason: str
) -> None:
    path = store(tmp_path / "a.zarr", version)
    changed_metadata(path, "u/.zarray" if version == 2 else "u/zarr.json", **values)
    monkeypatch.setattr(numcodecs.pickles.Pickle, "__init__", lambda *_, **__: pytest.fail("a codec was made"))
    with pytest.raises(UserError, match=f"No field(.|\n)*{reason}"):
        read(path)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_is_not_used(tmp_path: Path, version: int) -> None:
    path = store(tmp_path / "a.zarr", version)
    zarr.consolidate_metadata(path)
    name = ".zmetadata" if version == 2 else "zarr.json"
    for there in (path, path / "u"):
        if (there / name).exists():
            (there / name).write_text(
                (there / name).read_text().replace('"gzip"', '"pickle"').replace("zstd", "pickle")
            )
    if version == 3:
        store(tmp_path / "b", version)
        shutil.copy(tmp_path / "b/u/zarr.json", path / "u/zarr.json")
    check(read(path))


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_texts_and_objects_are_left_out_of_a_store(tmp_path: Path, version: int) -> None:
    data = dataset().assign(label=("member", np.array([f"run {i}" for i in range(12)], object)))
    data.to_zarr(tmp_path / "a.zarr", consolidated=False, zarr_format=version)
    reading = read(tmp_path / "a.zarr")
    check(reading)
    assert told(reading, "label is not read", "no numbers")
    zarr.create_array(tmp_path / "b.zarr", shape=(2,), dtype="U4", zarr_format=version)
    with pytest.raises(UserError, match=r"b\.zarr: its values are .*, no numbers"):
        read(tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (2, {"compressors": numcodecs.Blosc(), "filters": [numcodecs.Shuffle(4)]}),
        (2, {"compressors": numcodecs.LZ4(), "order": "F"}),
        (2, {"compressors": numcodecs.GZip()}),
        (2, {"compressors": None}),
        (3, {"compressors": [zarr.codecs.GzipCodec(), zarr.codecs.Crc32cCodec()]}),
        (3, {"compressors": [zarr.codecs.Crc32cCodec(), zarr.codecs.ZstdCodec()]}),
        (3, {"compressors": None, "filters": zarr.codecs.TransposeCodec(order=(2, 0, 1))}),
        (3, {"chunks": (2, 10, 24), "shards": (4, 20, 24), "compressors": zarr.codecs.BloscCodec()}),
    ],
)
def test_the_codecs_that_are_accepted_give_the_same_values(
    tmp_path: Path, version: int, options: dict[str, Any]
) -> None:
    array = U.astype("f4")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_array("u", data=array, **options)
    group.create_array("t", data=T)
    group.create_array("x", data=X)
    reading = read(tmp_path / "a.zarr")
    np.testing.assert_allclose(reading.fields.values[7, 3:17][:, 0], U[7, 3:17])


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"compression": "szip"},
        {"compression": "gzip", "scaleoffset": 5},
        {"fletcher32": True},
    ],
)
def test_the_filters_of_hdf5_give_the_same_values(tmp_path: Path, options: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("u", data=U, chunks=(5, 7, 11), **options)
        file["t"], file["x"] = T, X
    reading = read(tmp_path / "a.h5")
    np.testing.assert_allclose(reading.fields.values[7, 3:17][:, 0], U[7, 3:17], atol=1e-5)


def test_values_that_become_unreadable_are_named_with_their_file(tmp_path: Path) -> None:
    """As at training, where values are read that no look at the data has reached."""
    hdf5(tmp_path / "a.h5")
    fields = read(tmp_path / "a.h5").fields
    with h5py.File(tmp_path / "b.h5", "w") as file:
        array = file.create_dataset("u", U.shape, U.dtype, chunks=(1, 5, 24), compression="gzip")
        array.id.write_direct_chunk((0, 0, 0), zlib.compress(ZEROS))
    with h5py.File(tmp_path / "b.h5", "r") as file:
        bomb = Variable(Stored(file["u"]), ("sample", "time", "x"))
        piece = replace(fields.values.pieces[0], variable=bomb)  # type: ignore[attr-defined]
        damaged = replace(fields, values=replace(fields.values, pieces=(piece,)))  # type: ignore[type-var]
        with pytest.raises(UserError, match=r"a\.h5, trajectory 0 cannot be read: a chunk of /u.*decompression bomb"):
            read_states(damaged, Span(0, 0, 2))
        assert not read_states(damaged, Span(0, 5, 5)).any()  # the next chunk, which is not in the file


@pytest.mark.parametrize("words", [["data"], ["train", "--steps", "1"]])
def test_every_entrance_refuses_what_names_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    folder, out = tmp_path / "given", ["--out", str(tmp_path / "out.html" if words == ["data"] else tmp_path / "run")]
    folder.mkdir()
    hdf5_as(".nc", folder / "a.nc", external)
    (folder / "elsewhere").rename(tmp_path / "elsewhere")
    for path in (folder / "a.nc", folder):
        assert command([*words, str(path), *out])
        assert "a.nc: u is stored externally" in capsys.readouterr().err
    assert FieldModality().sniff(folder / "a.nc").score > 0.9  # so that the reader says what is wrong


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5)])
def test_the_elements_of_matlab_end_at_multiples_of_8_bytes(order: str, shape: tuple[int, ...]) -> None:
    """Flags with the class of doubles, dimensions and a name of 9 letters, each after a tag of 8 bytes."""
    dimensions, name = struct.pack(f"{order}{len(shape)}i", *shape), b"longer_ab"
    head = bytes(16) + struct.pack(f"{order}II", 6, 0)
    for kind, content in ((5, dimensions), (1, name)):
        head += struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)
    most = len(head) + COMPLEX * (16 + 8 * int(np.prod(shape)))
    assert _declared(head, order) == ("longer_ab", most)
