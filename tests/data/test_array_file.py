"""A .npy or .npz of a client is read only if it holds what it declares, and no more than is allowed."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError
from afresh.data import array_file
from afresh.data.image.arrays import read_arrays, read_headers

ARRAY = np.arange(24, dtype=np.float32).reshape(4, 6)
MOST = 1 << 16


def npy(shape: tuple[int, ...], content: bytes, spaces: int = 0) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".encode() + b" " * spaces + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + content


def npz(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_what_was_written_is_read() -> None:
    np.testing.assert_array_equal(array_file.load(array_file.encode(ARRAY), MOST), ARRAY)
    assert list(array_file.load(npz(**{"u.npy": array_file.encode(ARRAY)}), MOST)) == ["u"]


@pytest.mark.parametrize("shape", [(1 << 28,), (1 << 40,), (1 << 62, 1 << 62), (-1,), (2,)])
def test_a_header_that_lies_about_the_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="it is not a"):
        array_file.load(npy(shape, bytes(100)), MOST)


def test_an_npz_unpacks_to_no_more_than_is_allowed() -> None:
    content = np.zeros(MOST, np.float32)
    for members, reason in (
        ({"u.npy": array_file.encode(content)}, "too large"),
        ({"u": bytes(8 * MOST), "v.npy": array_file.encode(ARRAY)}, "u is not an array"),
        ({"u.npy": npy((1,), bytes(4), spaces=1 << 18)}, "EOF: reading array header"),
    ):
        with pytest.raises(ValueError, match=reason):
            array_file.load(npz(**members), MOST)


def test_the_array_that_was_looked_at_is_the_one_that_is_read(tmp_path: Path) -> None:
    """NumPy reads the member `x` in place of `x.npy`."""
    images, other = np.full((2, 8, 8), 7, np.uint8), io.BytesIO()
    np.save(other, np.zeros((1000, 8, 8), np.uint8))
    good = io.BytesIO()
    np.save(good, images)
    (tmp_path / "a.npz").write_bytes(npz(**{"x": other.getvalue(), "x.npy": good.getvalue()}))
    assert read_arrays(tmp_path / "a.npz")[0].pixels.shape == (2, 8, 8, 1)


def test_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(**{"x.npy": npy((1,), bytes(4), spaces=900_000)}))
    with pytest.raises(UserError, match="reading array header"):
        read_headers(tmp_path / "a.npz")
