"""The container GGUF, read with suspicion: every count and offset is held against the file before it is followed.

Layout: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Quantised blocks are taken apart by the package gguf.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST = 1 << 20  # tensors, or fields
LONGEST_NAME = 1 << 16
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, FLOAT32 = 8, 9, 6
KEPT = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}  # types that torch has too


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its shape as in torch, its type of ggml, its first byte and how many there are."""

    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """Fields by name, and tensors that are read when asked for."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Stored]
    data: mmap.mmap = field(repr=False)

    def tensor(self, name: str) -> Tensor:
        """As stored where that is float32, float16 or bfloat16; else dequantised to float32. Raises UserError for a
        quantisation that the package gguf does not take apart."""
        from gguf import GGMLQuantizationType, dequantize

        stored = self.tensors[name]
        raw = np.frombuffer(self.data, np.uint8, stored.size, stored.start).copy()
        if stored.kind in KEPT:
            return torch.from_numpy(raw).view(KEPT[stored.kind]).reshape(stored.shape)
        kind = GGMLQuantizationType(stored.kind)
        try:
            rows = raw.reshape(*stored.shape[:-1], -1)
            return torch.from_numpy(np.ascontiguousarray(dequantize(rows, kind), dtype=np.float32)).reshape(
                stored.shape
            )
        except NotImplementedError:
            raise UserError(
                f"{name} in {self.path} is quantised as {kind.name}, which the package gguf cannot take apart. "
                "Use a file in another quantisation (Q4_K_M, Q8_0, F16, ...)."
            ) from None


class _Cursor:
    """Reads forward through the header, and never past the end of the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.place = data, path, 0

    def take(self, size: int, what: str) -> bytes:
        end = self.place + size
        if end > len(self.data):
            raise UserError(
                f"{self.path} is damaged or cut short: its header says that {what} takes {size:,} bytes from byte "
                f"{self.place:,} on, but the file ends at {len(self.data):,}. Fetch it again."
            )
        found = self.data[self.place : end]
        self.place = end
        return found

    def number(self, kind: int, what: str) -> Any:
        (value,) = struct.unpack(f"<{NUMBERS[kind]}", self.take(struct.calcsize(f"<{NUMBERS[kind]}"), what))
        return float(str(np.float32(value))) if kind == FLOAT32 else value  # 1e-05, not 9.999999747378752e-06

    def count(self, what: str) -> int:
        return int(self.number(10, what))

    def string(self, what: str) -> str:
        raw = self.take(self.count(f"the length of {what}"), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{self.path} is damaged: {what} is no UTF-8. Fetch it again.") from None

    def name(self, what: str) -> str:
        found = self.string(what)
        if not 0 < len(found) <= LONGEST_NAME:
            raise UserError(f"{self.path} is damaged: {what} has {len(found):,} characters. Fetch it again.")
        return found

    def value(self, kind: int, what: str) -> Any:
        if kind == STRING:
            return self.string(what)
        if kind in NUMBERS:
            return self.number(kind, what)
        if kind != ARRAY:
            raise UserError(f"{self.path} is damaged: {what} has the unknown type {kind}. Fetch it again.")
        inner, n = int(self.number(4, what)), self.count(what)
        if inner in NUMBERS:
            letter = NUMBERS[inner]
            return np.frombuffer(self.take(n * struct.calcsize(f"<{letter}"), what), f"<{letter}").tolist()
        if inner != STRING:
            raise UserError(f"{self.path} has an array of type {inner} in {what}, which is not read.")
        if n * 8 > len(self.data) - self.place:
            self.take(n * 8, what)  # says so
        return [self.string(what) for _ in range(n)]


def open_gguf(path: Path) -> GGUFFile:
    """Fields and places of tensors. Raises UserError for what is no GGUF file, is damaged, or holds unknown types."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        raise UserError("Reading GGUF needs the package gguf. Install it: pip install 'afresh[hf]'.") from None
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # of mmap
        raise UserError(f"{path} is empty (0 bytes). Fetch it again.") from None
    except OSError as e:
        raise UserError(f"Cannot read {path}: {e}.") from None
    cursor = _Cursor(data, path)
    tensors, fields = _counts(cursor)
    found = {}
    for _ in range(fields):
        name = cursor.name("the name of a field")
        found[name] = cursor.value(int(cursor.number(4, name)), name)
    described = []
    for _ in range(tensors):
        name = cursor.name("the name of a tensor")
        rank = int(cursor.number(4, name))
        if rank > 4:
            raise UserError(f"{path} is damaged: {name} has {rank} dimensions. Fetch it again.")
        shape = tuple(cursor.count(name) for _ in range(rank))[::-1]  # ggml counts from the innermost
        described.append((name, shape, int(cursor.number(4, name)), cursor.count(name)))
    align = found.get("general.alignment", 32)
    if not isinstance(align, int) or not 0 < align <= 1 << 20:
        raise UserError(f"{path} is damaged: general.alignment is {align!r}. Fetch it again.")
    start = -(-cursor.place // align) * align
    stored: dict[str, Stored] = {}
    known = {int(k): v for k, v in GGML_QUANT_SIZES.items()}
    for name, shape, kind, offset in described:
        if kind not in known:
            raise UserError(
                f"{name} in {path} has the type {kind}, which the installed package gguf does not know. Update it, or "
                "use a file in another quantisation."
            )
        block, width = known[kind]
        if name in stored or not shape or shape[-1] % block:
            fault = (
                "is there twice"
                if name in stored
                else f"has the shape {list(shape)} in {GGMLQuantizationType(kind).name}"
            )
            raise UserError(f"{path} is damaged: {name} {fault}. Fetch it again.")
        size = int(np.prod(shape, dtype=object)) // block * width
        if start + offset + size > len(data):
            raise UserError(
                f"{path} is damaged or cut short: {name} would end at byte {start + offset + size:,}, but the file at "
                f"{len(data):,}. Fetch it again."
            )
        stored[name] = Stored(shape, kind, start + offset, size)
    return GGUFFile(path, found, stored, data)


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Tensors and fields, after the magic and the version. Raises UserError for what is no GGUF that is read."""
    path = cursor.path
    if cursor.take(4, "the magic") != MAGIC:
        raise UserError(f"{path} is no GGUF file: it does not begin with GGUF.")
    version = int(cursor.number(4, "the version"))
    if version not in VERSIONS:
        raise UserError(f"{path} is GGUF of version {version} (or of another byte order); read here: 2 and 3.")
    tensors, fields = cursor.count("the number of tensors"), cursor.count("the number of fields")
    if max(tensors, fields) > MOST:
        raise UserError(
            f"{path} is damaged: it says to have {tensors:,} tensors and {fields:,} fields. Fetch it again."
        )
    return tensors, fields
