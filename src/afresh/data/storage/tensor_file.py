"""Safetensors files that a run holds, with every failure as a UserError that names the file and the tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from afresh.core import UserError

MOST_HEADER = 1 << 23  # bytes; 32,768 tensors have about five million


def check_header(head: bytes) -> None:
    """Raises ValueError if the header of a safetensors file that begins so is larger than that of any model: each name
    in it becomes an object."""
    if (size := int.from_bytes(head[:8], "little")) > MOST_HEADER:
        raise ValueError(f"its header has {size:,} bytes, and at most {MOST_HEADER:,} are read")


def read_tensors(file: Path, data: bytes | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of its content `data`. They never need more memory than the file has bytes.

    Raises UserError if it is missing, cut short, or not such a file.
    """

    def read() -> dict[str, Tensor]:
        content = file.read_bytes() if data is None else data
        check_header(content)
        return load(content)

    return from_file(file, read)


def from_file(file: Path, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return read()
    except OSError as e:
        raise UserError(f"{file} cannot be read: {e.strerror or e}. Restore a copy of it.", "missing") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as e:
        raise UserError(
            f"{file} is not a valid safetensors file: {e}. Restore a copy of it.", "damaged", file=str(file)
        ) from None


def map_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose bytes are read when they are used, and which the system may forget and
    read again. The file may be replaced, but must not be written to. Raises as `read_tensors` does."""

    def read() -> dict[str, Tensor]:
        with file.open("rb") as stream:
            check_header(stream.read(8))
        return load_file(file)

    return from_file(file, read)


def check_tensor(
    tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]
) -> Tensor:
    """A tensor of this shape and one of these types. Raises ValueError, naming it, otherwise."""
    if name not in tensors:
        raise ValueError(f"it has no {name}")
    found = tensors[name]
    if tuple(found.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(found.shape)}, and not {shape}")
    if found.dtype not in dtypes:
        raise ValueError(f"{name} holds {found.dtype}, and not {' or '.join(map(str, dtypes))}")
    if found.is_floating_point() and not bool(found.isfinite().all()):
        raise ValueError(f"{name} has numbers that are not finite")
    return found
