"""What sampling gives: decoded values with what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from afresh.core import Cond, Encoder
from afresh.sampling.text_stream import Written


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

        A path that ends in .png gets one picture of all, one in .wav or .flac the only sound. Raises UserError where it
        cannot be written, and for other suffixes of files.
        """
        from afresh.sampling.save_samples import check_out, write_picture, write_samples, write_sound

        path = Path(folder)
        check_out(path, self.encoder.space, len(self.values))
        if path.is_dir() or path.suffix.lower() not in (".png", ".wav", ".flac"):
            return write_samples(self, path)
        return write_picture(self, path) if path.suffix.lower() == ".png" else write_sound(self, path)

    def _repr_html_(self) -> str:
        """Pictures or texts, for a notebook."""
        from afresh.sampling.save_samples import samples_html

        return samples_html(self)
