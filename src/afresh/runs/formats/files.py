"""JSON and safetensors files of exports, read and written with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from afresh.core import UserError
from afresh.core.options import problems
from afresh.core.safe_json import MOST_BYTES, parse_json
from afresh.data.storage.tensor_file import check_header

M = TypeVar("M", bound=BaseModel)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError if the file is missing or contains something else."""
    try:
        with file.open("rb") as stream:
            saved = parse_json(stream.read(MOST_BYTES + 1))
    except (OSError, ValueError) as e:
        raise UserError(f"Cannot read {file}: {e}.") from None
    if not isinstance(saved, dict):
        raise UserError(f"{file} does not contain a JSON object.")
    return saved


def read_model(file: Path, model: type[M]) -> M:
    """A JSON object as `model`. Raises UserError naming the fields that are missing, unknown or invalid."""
    try:
        return model.model_validate(read_json(file))
    except ValidationError as e:
        raise UserError(f"{file} is not an export that this version can read: {problems(e, model)}.") from None


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def open_tensors(file: Path) -> Any:
    """An open safetensors file. Raises UserError if it is missing, cut short or damaged."""
    try:
        with file.open("rb") as stream:
            check_header(stream.read(8))
        return safe_open(file, framework="pt")
    except (OSError, ValueError, SafetensorError) as e:
        raise UserError(f"Cannot read {file}: {e}. Is the file complete?") from None


def load_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. Raises UserError as `open_tensors`."""
    with open_tensors(file) as f:
        return {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a mapping
