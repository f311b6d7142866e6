"""Items that are arrays of float32: what they are known by, and .npy files of them."""

from __future__ import annotations

import hashlib
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.data.files import FileError
from afresh.data.image.arrays import array_header, headers_within
from afresh.data.limits import parsing

ZIP = b"PK"


def digest(array: NDArray[np.float32]) -> str:
    """A hash of the shape and the values."""
    h = hashlib.sha256(f"{array.shape}\n".encode())
    h.update(np.ascontiguousarray(array, "<f4").tobytes())
    return h.hexdigest()


def encode(array: NDArray[np.float32]) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def load(content: bytes, most: int) -> Any:
    """What NumPy reads from a .npy or .npz file, without pickle. Raises ValueError for other files, and for those of
    more than `most` bytes, packed or unpacked."""
    stream = io.BytesIO(content)
    try:
        with parsing("NumPy file"):
            packed = content.startswith(ZIP)
            headers = headers_within(stream) if packed else {"it": array_header(stream, len(content), "it")}
            sizes = [math.prod(header.shape) * header.dtype.itemsize for header in headers.values()]
            if max(len(content), sum(sizes)) > most:
                raise FileError(f"{max(len(content), sum(sizes)):,} bytes are too large (at most {most:,})")
            stream.seek(0)
            loaded = np.load(stream, allow_pickle=False)
            if packed and (other := set(loaded.files) - set(headers)):  # which NumPy would unpack without a look
                raise FileError(f"{min(other)} is not an array: the names of arrays end in .npy")
            return loaded
    except FileError as e:
        raise ValueError(f"it is not a .npy or .npz file of numbers: {e}") from None


def real_numbers(array: Any) -> bool:
    """Whether something is an array of real numbers."""
    return isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
