"""Settings of training and of the network given by hand: `train.lr=0.001`, `family.width=256`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from afresh.core import UserError
from afresh.training.config import TrainConfig

# What has a flag of its own may not be said twice.
FLAGS = ("steps", "seed", "device")


def by_part(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """{"family.width": ..., "train.lr": ...} to (of the family, of training); those of training are typed here,
    those of the family once it is known. Raises UserError naming what exists."""
    family: dict[str, Any] = {}
    train: dict[str, Any] = {}
    for name, value in given.items():
        part, dot, field = name.partition(".")
        if not dot or part not in ("train", "family"):
            raise UserError(f"Settings are train.NAME or family.NAME, as in `train.lr=0.001`. Given: {name!r}.")
        if part == "family":
            family[field] = value
        else:
            train[field] = of_training(field, value)
    return family, train


def parted(given: Mapping[str, Any], parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{"align.beta": ...} by what stands before the dot; those of training are typed here. Raises UserError."""
    out: dict[str, dict[str, Any]] = {p: {} for p in parts}
    for name, value in given.items():
        part, dot, field = name.partition(".")
        if not dot or part not in out:
            known = ", ".join(f"{p}.NAME" for p in parts)
            raise UserError(f"Settings here are {known}, as in `train.lr=0.001`. Given: {name!r}.")
        out[part][field] = of_training(field, value) if part == "train" else value
    return out


def of_training(name: str, value: Any) -> Any:
    """One field of TrainConfig, typed. Raises UserError for an unknown name or a value that does not fit."""
    known = TrainConfig.model_fields
    if name in FLAGS:
        raise UserError(f"train.{name} has a parameter of its own: `{name}`. Use that.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {', '.join(near)}? " if near else ""
        raise UserError(
            f"There is no setting train.{name}. {hint}Known: {', '.join(k for k in known if k not in FLAGS)}."
        )
    info = known[name]
    kind: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as e:
        why = "; ".join(x["msg"] for x in e.errors())
        raise UserError(f"`train.{name}={value}`: {why}.") from e
