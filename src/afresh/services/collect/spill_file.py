"""What is needed again later while a data set is assembled, kept in a file so that memory does not grow with it."""

from __future__ import annotations

import json
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from afresh.services.collect.near import Array

CACHED = 64 << 20  # bytes of arrays that stay in memory

Head = Mapping[str, Any]


class Scratch:
    """Facts with an array each, by number in the order in which they were put."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w+b")
        self.offsets = array("Q", [0])
        self.cache: OrderedDict[int, tuple[Head, Array]] = OrderedDict()
        self.bytes = 0

    def put(self, head: Head, detail: Array) -> int:
        """The number by which it is got back."""
        facts = json.dumps([head, detail.dtype.str, detail.shape], ensure_ascii=True).encode()
        self.file.seek(self.offsets[-1])
        self.file.write(len(facts).to_bytes(4, "little") + facts + detail.tobytes())
        self.offsets.append(self.file.tell())
        number = len(self.offsets) - 2
        self._remember(number, (head, detail))
        return number

    def get(self, number: int) -> tuple[Head, Array]:
        found = self.cache.get(number)
        if found is not None:
            self.cache.move_to_end(number)
            return found
        self.file.seek(self.offsets[number])
        raw = self.file.read(self.offsets[number + 1] - self.offsets[number])
        end = 4 + int.from_bytes(raw[:4], "little")
        head, dtype, shape = json.loads(raw[4:end])
        detail = np.frombuffer(raw, np.dtype(dtype), offset=end).reshape(shape)
        self._remember(number, (head, detail))
        return head, detail

    def _remember(self, number: int, found: tuple[Head, Array]) -> None:
        self.cache[number] = found
        self.bytes += found[1].nbytes + 1_000
        while self.bytes > CACHED:
            _, (_, detail) = self.cache.popitem(last=False)
            self.bytes -= detail.nbytes + 1_000
