"""GGUF files, read by the package gguf (github.com/ggml-org/ggml/blob/master/docs/gguf.md).

`gguf.GGUFReader` follows every count and offset of a header; here it is stopped at the end of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import UserError

if TYPE_CHECKING:
    from gguf import ReaderField, ReaderTensor

VERSIONS = (2, 3)


@dataclass(frozen=True)
class GGUFFile:
    """Fields by name, and tensors that are read when asked for."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, ReaderTensor]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in torch's order of dimensions; ggml counts from the innermost."""
        return tuple(self.tensors[name].shape.tolist()[::-1])

    def tensor(self, name: str) -> Tensor:
        """The tensor as stored if that is float32, float16 or bfloat16, else dequantised to float32. Raises UserError
        if the package gguf cannot dequantise it."""
        from gguf import GGMLQuantizationType, dequantize

        stored = self.tensors[name]
        kind = stored.tensor_type
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            return torch.from_numpy(stored.data.copy())
        if kind == GGMLQuantizationType.BF16:
            return torch.from_numpy(stored.data.copy()).view(torch.bfloat16)
        try:
            return torch.from_numpy(np.ascontiguousarray(dequantize(stored.data, kind), dtype=np.float32))
        except NotImplementedError:
            raise UserError(
                f"{name} in {self.path} is quantised as {kind.name}, which the package gguf cannot dequantise. "
                "Use a file in another quantisation (Q4_K_M, Q8_0, F16, ...)."
            ) from None


def architecture_of(path: Path) -> str | None:
    """The architecture that a GGUF file names in its first kilobytes; None if it names none or is not a GGUF file."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError:
        return None
    _, key, rest = head.partition(b"general.architecture")
    if not head.startswith(b"GGUF") or not key:
        return None
    length = int.from_bytes(rest[4:12], "little")  # after the number of the type
    return rest[12 : 12 + length].decode("utf-8", "replace")


def open_gguf(path: Path) -> GGUFFile:
    """The fields and the positions of the tensors. Raises UserError if it is not a GGUF file, is damaged, or holds
    unknown types."""
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError:
        raise UserError("Reading GGUF needs the package gguf. Install it: pip install 'afresh[hf]'.") from None

    class Bounded(GGUFReader):
        """Raises ValueError at the end of the file; reads arrays of numbers in one piece."""

        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            end = offset + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError(f"its header leads to byte {end:,}, but the file ends at byte {len(self.data):,}")
            return super()._get(offset, dtype, count, override_order)

        def _get_field_parts(self, orig_offs: int, raw_type: Any) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
            number = self.gguf_scalar_to_np.get(GGUFValueType(kind[0]))
            if number is not None:
                values = self._get(orig_offs + 12, number, count[0])
                return 12 + values.nbytes, [kind, count, values], [2], [GGUFValueType.ARRAY, GGUFValueType(kind[0])]
            if kind[0] != GGUFValueType.STRING:
                raise ValueError("it has an array of arrays, which is not supported")
            self._get(orig_offs + 12, np.uint64, count[0])  # each string begins with its length
            return super()._get_field_parts(orig_offs, raw_type)

    try:
        with path.open("rb") as file:
            magic, version = file.read(4), int.from_bytes(file.read(4), "little")
        if not magic:
            raise UserError(f"{path} is empty (0 bytes). Fetch it again.")
        if magic != b"GGUF":
            raise UserError(f"{path} is not a GGUF file: it does not begin with GGUF.")
        if version not in VERSIONS:
            raise UserError(f"{path} is GGUF of version {version} (or of another byte order); supported are 2 and 3.")
        with np.errstate(over="raise"):
            reader = Bounded(path)
        if scalars := [t.name for t in reader.tensors if not len(t.shape)]:
            raise ValueError(f"{scalars[0]} has no dimensions")
        fields = {name: _value(field) for name, field in reader.fields.items()}
    except OSError as e:
        raise UserError(f"Cannot read {path}: {e}.") from None
    except (ValueError, LookupError, ArithmeticError) as e:  # whatever GGUFReader meets in a damaged header
        raise UserError(
            f"{path} cannot be read as GGUF: {e.args[-1] if e.args else type(e).__name__}. It may be damaged or cut "
            "short: fetch it again. Or it may be newer than the installed package gguf: update that."
        ) from None
    return GGUFFile(path, fields, {t.name: t for t in reader.tensors})


def _value(field: ReaderField) -> Any:
    """A field's value. A float32 becomes the shortest number that rounds to it: 1e-05, not 9.999999747378752e-06."""
    from gguf import GGUFValueType

    value = field.contents()
    return float(str(np.float32(value))) if field.types == [GGUFValueType.FLOAT32] else value
