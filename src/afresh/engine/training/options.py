"""User settings of training and of the network, such as `train.lr=0.001` and `family.width=256`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from afresh.core import UserError
from afresh.core.library_words import in_plain_words
from afresh.engine.training.config import TrainConfig

# Settings with a parameter of their own, which must not be set in two ways.
FLAGS = ("steps", "seed", "device")


def split_by_part(given: Mapping[str, Any], parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Split {"align.beta": ...} by the word before the dot, one of `parts`. Settings of training are validated here.

    Raises UserError for unknown names, and for invalid values of training.
    """
    out: dict[str, dict[str, Any]] = {p: {} for p in parts}
    for name, value in given.items():
        part, dot, field = name.partition(".")
        if not dot or part not in out:
            known = " or ".join(f"{p}.NAME" for p in parts)
            raise UserError(f"Settings are {known}, as in `train.lr=0.001`. Given: {name!r}.")
        out[part][field] = of_training(field, value) if part == "train" else value
    return out


def of_training(name: str, value: Any) -> Any:
    """Validate one field of TrainConfig. Raises UserError for an unknown name or an invalid value."""
    known = TrainConfig.model_fields
    if name in FLAGS:
        raise UserError(f"train.{name} has a parameter of its own: `{name}`. Use that.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise UserError(f"No setting train.{name}. {hint}Known: {', '.join(k for k in known if k not in FLAGS)}.")
    info = known[name]
    kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as e:
        why = "; ".join(in_plain_words(x["msg"]) for x in e.errors())
        raise UserError(f"`train.{name}={value}`: {why}.") from e
