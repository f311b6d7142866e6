"""GGUF files, read by the package gguf (github.com/ggml-org/ggml/blob/master/docs/gguf.md).

`gguf.GGUFReader` follows every count and offset of a header, and makes two objects of a text; here it is stopped at the
end of the file, and at more fields, items, texts or tensors than the largest public models have.
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
MOST_FIELDS, MOST_TENSORS, MOST_DIMENSIONS = 1 << 14, 1 << 15, 8
MOST_ITEMS = 1_500_000  # of all arrays together; the vocabulary with the most has 262,144 tokens and 514,906 merges
MOST_TEXT = 1 << 27  # bytes of all texts together


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
        """Raises ValueError at the end of the file and at a bound; reads an array in one piece, a text as str."""

        items = text = 0  # read so far

        def _within(self, end: int) -> None:
            if end > len(self.data):
                raise ValueError(f"its header leads to byte {end:,}, but the file ends at byte {len(self.data):,}")

        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            self._within(offset + np.dtype(dtype).itemsize * int(count))
            return super()._get(offset, dtype, count, override_order)

        def _get_str(self, offset: int) -> Any:
            found = super()._get_str(offset)
            self.text = at_most(self.text + len(found[1]), MOST_TEXT, "bytes of text")
            return found

        def _get_field_parts(self, orig_offs: int, raw_type: Any) -> Any:
            if raw_type != GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            (raw,), (count,) = self._get(orig_offs, np.uint32).tolist(), self._get(orig_offs + 4, np.uint64).tolist()
            kind, at = GGUFValueType(raw), orig_offs + 12
            if kind == GGUFValueType.ARRAY:
                raise ValueError("it has an array of arrays, which is not supported")
            number = self.gguf_scalar_to_np.get(kind)
            values: Any = self._get(at, np.uint64 if number is None else number, count)  # a text begins with its length
            self.items = at_most(self.items + count, MOST_ITEMS, "items of arrays")
            if number is not None:
                return 12 + values.nbytes, [values], [0], [GGUFValueType.ARRAY, kind]
            raw_bytes: Any = self.data
            texts, data = [], memoryview(raw_bytes)
            for _ in range(count):
                size = int.from_bytes(data[at : at + 8], "little")
                at += 8 + size
                self._within(at)
                self.text = at_most(self.text + size, MOST_TEXT, "bytes of text")
                texts.append(str(data[at - size : at], "utf-8"))
            return at - orig_offs, [texts], [0], [GGUFValueType.ARRAY, kind]

        def _build_fields(self, offs: int, count: int) -> int:
            self._within(offs + 13 * int(count))  # the shortest, of a byte
            return super()._build_fields(offs, at_most(int(count), MOST_FIELDS, "fields"))

        def _build_tensor_info(self, offs: int, count: int) -> Any:
            self._within(offs + 24 * int(count))
            return super()._build_tensor_info(offs, at_most(int(count), MOST_TENSORS, "tensors"))

        def _get_tensor_info_field(self, orig_offs: int) -> Any:
            (size,) = self._get(orig_offs, np.uint64).tolist()
            at_most(int(self._get(orig_offs + 8 + size, np.uint32)[0]), MOST_DIMENSIONS, "dimensions of a tensor")
            return super()._get_tensor_info_field(orig_offs)

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


def at_most(number: int, most: int, what: str) -> int:
    """The number. Raises ValueError if it is more."""
    if number > most:
        raise ValueError(f"its header has {number:,} {what}, and at most {most:,} are read")
    return number


def _value(field: ReaderField) -> Any:
    """A field's value. A float32 becomes the shortest number that rounds to it: 1e-05, not 9.999999747378752e-06."""
    from gguf import GGUFValueType

    if field.types == [GGUFValueType.ARRAY, GGUFValueType.STRING]:
        return field.parts[-1]
    value = field.contents()
    return float(str(np.float32(value))) if field.types == [GGUFValueType.FLOAT32] else value
