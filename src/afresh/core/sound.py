"""Audio in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Sound:
    """Audio: `samples` (T, C), a NumPy array of float32 in [-1, 1], at `rate` samples per second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate
