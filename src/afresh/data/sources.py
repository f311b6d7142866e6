"""Where data comes from: what the readers of modalities do not know becomes a folder of files that they know."""

from __future__ import annotations

from pathlib import Path

from afresh.core import registry


def readable(path: Path, modality: str | None) -> Path:
    """The path itself, or what the first source that knows it made of it.

    `modality` is the one that was asked for; None to choose by what the data holds. Raises UserError if a source knows
    the path and cannot read it.
    """
    for source in registry.sources():
        if (found := source(path, modality)) is not None:
            return found
    return path
