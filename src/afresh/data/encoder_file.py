"""What the encoders of all modalities share: their file encoder.json, and the names of files that they write."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from afresh.core.safe_json import read_model

FILE = "encoder.json"
M = TypeVar("M", bound=BaseModel)


def save_encoder(folder: Path, saved: BaseModel, left_out: Set[str] = frozenset()) -> None:
    """Write encoder.json to `folder`, which is created if necessary, without some fields that have their default."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(saved.model_dump_json(indent=1, exclude=set(left_out)), encoding="utf-8")


def load_encoder(folder: Path, model: type[M], what: str) -> M:
    """Read encoder.json. Raises UserError if it is missing, damaged, of another version or has unknown fields.

    `what` names what is encoded in the message ("images").
    """
    return read_model(folder / FILE, model, f"an encoder of {what}")


def written_names(names: Sequence[str], suffix: str) -> list[str]:
    """Names of files with `suffix` (with the dot), in which characters other than letters, digits, ., _ and - are
    replaced by _. Raises ValueError if two names become the same."""
    files = [re.sub(r"[^\w.-]", "_", name.removesuffix(suffix)) + suffix for name in names]
    if len(set(files)) != len(files):
        raise ValueError(f"{len(files)} values need as many different names, not {files}")
    return files
