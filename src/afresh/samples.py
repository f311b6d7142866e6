"""What sampling gives: decoded values with what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from afresh.core import Cond, Encoder
from afresh.watch import Written


@dataclass(frozen=True)
class Samples:
    """Decoded samples, with the requests they answered."""

    values: Sequence[Any]
    x: Tensor  # in the modality's space
    cond: Cond
    described: Sequence[Mapping[str, Any]]  # prompt, label, ... of each
    seed: int
    encoder: Encoder
    written: Sequence[Written] = ()  # why each text ended, where the family writes from left to right

    def save(self, folder: str | Path) -> list[dict[str, Any]]:
        """Write files of the modality's own kind and samples.json(l) into `folder`; returns the records.

        A path that ends in .png gets one picture of all. Raises UserError where it cannot be written.
        """
        from afresh.write import write_picture, write_samples

        path = Path(folder)
        return write_picture(self, path) if path.suffix.lower() == ".png" else write_samples(self, path)

    def _repr_html_(self) -> str:
        """Pictures or texts, for a notebook."""
        from afresh.write import samples_html

        return samples_html(self)
