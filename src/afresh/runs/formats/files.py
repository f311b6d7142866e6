"""JSON and safetensors files of exports, read and written with errors that name the file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from afresh.core import UserError
from afresh.core.options import problems
from afresh.core.safe_json import MOST_BYTES, parse_json
from afresh.data.storage.tensor_file import check_header

LISTED = 6  # names in a message
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


def shards_of(index: Path) -> list[str]:
    """The names of the files beside an index that it names. Raises UserError if it names others, or none."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise UserError(f"{index} has no weight_map.")
    names = sorted({str(v) for v in table.values()})
    invalid = [n for n in names if Path(n).name != n or not n.endswith(".safetensors")]
    if invalid:
        raise UserError(f"{index} names files that are not shards beside it: {few(invalid)}.")
    return names


def check_complete(folder: Path, names: Sequence[str]) -> None:
    missing = [n for n in names if not (folder / n).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards: {few(missing)}. Fetch it again, whole."
        )


def check_shards(folder: Path) -> None:
    """Raises UserError, naming files, if a folder or one of those in it has some of the shards of its weights and not
    all, by an index or by their own names."""
    for index in sorted((*folder.glob("*.safetensors.index*.json"), *folder.glob("*/*.safetensors.index*.json"))):
        names = shards_of(index)
        if any((index.parent / n).is_file() for n in names):  # there may be an index of another precision
            check_complete(index.parent, names)
    for file in sorted((*folder.glob("*-of-*.safetensors"), *folder.glob("*/*-of-*.safetensors"))):
        if part := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(.*)", file.name):
            check_complete(file.parent, [f"{part[1]}-{i:05}-of-{part[2]}{part[3]}" for i in range(1, int(part[2]) + 1)])


def few(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
