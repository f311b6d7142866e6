"""Items that are arrays of float32: what they are known by, and .npy files of them."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    more than `most` bytes."""
    if len(content) > most:
        raise ValueError(f"a file of {len(content):,} bytes is too large (at most {most:,})")
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, EOFError, ValueError) as e:
        raise ValueError(f"it is not a .npy or .npz file of numbers: {e}") from None


def real_numbers(array: Any) -> bool:
    """Whether something is an array of real numbers."""
    return isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
