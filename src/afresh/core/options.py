"""Settings by hand: `train.lr=0.001`, `family.width=256`, from words to typed values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from afresh.core import CondSpec, Family, UserError
from afresh.training.config import TrainConfig

# What has a flag of its own may not be said twice.
FLAGS = {"steps": "--steps", "seed": "--seed", "device": "--device"}


def pairs(given: Sequence[str], flag: str) -> dict[str, Any]:
    """["a=1", "b=[1,2]"] to {"a": "1", "b": [1, 2]}: words stay words, for pydantic to read; lists are JSON.

    Raises UserError for what is no KEY=VALUE, and for a key given twice.
    """
    out: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{flag} takes KEY=VALUE. Given: {text!r}.")
        if key in out:
            raise UserError(f"{flag} {key} is given twice ({out[key]!r} and {value!r}). Give it once.")
        out[key] = _list(value, f"{flag} {text}") if value.startswith("[") else value
    return out


def _list(value: str, what: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as e:
        raise UserError(f"{what} looks like a list but is not JSON: {e}. Write it like [0.9, 0.95].") from e


def by_part(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """{"family.width": ..., "train.lr": ...} to (of the family, of training); those of training are typed here,
    those of the family once it is known. Raises UserError naming what exists."""
    family: dict[str, Any] = {}
    train: dict[str, Any] = {}
    for name, value in given.items():
        part, dot, field = name.partition(".")
        if not dot or part not in ("train", "family"):
            raise UserError(f"Settings are train.NAME or family.NAME, as in --set train.lr=0.001. Given: {name!r}.")
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
            raise UserError(f"Settings here are {known}, as in --set train.lr=0.001. Given: {name!r}.")
        out[part][field] = of_training(field, value) if part == "train" else value
    return out


def problems(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found wrong with the values for a model, in words: field, reason, what was given, and the range
    where it has one."""
    return "; ".join(_problem(x, model) for x in error.errors())


def _problem(found: ErrorDetails, model: type[BaseModel]) -> str:
    name = ".".join(map(str, found["loc"]))
    why = found["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    if not name:
        return why
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, model.model_fields, n=1)
        return f"there is no {name}" + (f", did you mean {near[0]}?" if near else "")
    field = model.model_fields.get(str(found["loc"][0]))
    bounds = "" if field is None else _bounds(field.metadata)
    return f"{name}: {why}, given {found['input']!r}" + (f" (accepted: {bounds})" if bounds else "")


def _bounds(metadata: Sequence[Any]) -> str:
    """'4000 to 48000', 'from 1', 'above 0' of a field's limits; empty where it has none."""
    low = [f"above {m.gt}" for m in metadata if isinstance(m, Gt)] + [f"{m.ge}" for m in metadata if isinstance(m, Ge)]
    high = [f"below {m.lt}" for m in metadata if isinstance(m, Lt)] + [f"{m.le}" for m in metadata if isinstance(m, Le)]
    if low and high:
        return f"{low[0]} to {high[0]}"
    if high:
        return high[0] if high[0].startswith("below") else f"at most {high[0]}"
    return "" if not low else low[0] if low[0].startswith("above") else f"from {low[0]}"


def of_training(name: str, value: Any) -> Any:
    """One field of TrainConfig, typed. Raises UserError for an unknown name or a value that does not fit."""
    known = TrainConfig.model_fields
    if name in FLAGS:
        raise UserError(f"--set train.{name}: this has a flag of its own, {FLAGS[name]}. Use that.")
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
        raise UserError(f"--set train.{name}={value}: {why}.") from e


def of_sampling(family: Family, given: Mapping[str, Any], guidable: bool) -> Any:
    """The family's sampling settings; `guidable`: whether the model was also trained without its conditions.

    Raises UserError naming those that exist, for a value that does not fit, and for guidance where it means nothing.
    """
    known = family.sampling.settings.model_fields  # type: ignore[attr-defined]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(
            f"{family.name} does not know {', '.join(unknown)} when sampling. It accepts: {', '.join(known)}."
        )
    try:
        settings = family.sampling.settings(**given)
    except ValidationError as e:
        raise UserError(f"Sampling settings of {family.name}: {problems(e, family.sampling.settings)}.") from e
    if given.get("guidance", 1.0) != 1.0 or (parts_weighed(family) and given.get("part_guidance")):
        if not guidable:
            raise UserError(
                "This model is unconditional, so there is nothing to guide towards. Leave --guidance out, or "
                "train on data with labels (class folders, metadata.jsonl)."
            )
        if not family.sampling.guided:
            raise UserError(
                f"Guidance is not supported for {family.name}: no gain of it was measured (see the support "
                "table in the README). Leave --guidance out."
            )
    return settings


def parts_weighed(family: Family) -> bool:
    """Whether guidance on each part can have a weight of its own: a setting `part_guidance`."""
    return "part_guidance" in family.sampling.settings.model_fields  # type: ignore[attr-defined]


def of_guidance(family: Family, spec: CondSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with guidance by part, {"guidance": {"caption": 3, "": 2}}, as `guidance` for all that are not named
    and `part_guidance` by part. "caption" is the caption, whatever its part is called.

    Raises UserError for an unknown part, and where the family weighs all parts alike.
    """
    wanted = given.get("guidance")
    if not isinstance(wanted, Mapping):
        return dict(given)
    rest = {k: v for k, v in given.items() if k != "guidance"}
    if "" in wanted:
        rest["guidance"] = wanted[""]
    names = {"caption" if p.kind in ("prompt", "vector") else k: k for k, p in spec.items()} | {k: k for k in spec}
    weights = {k: v for k, v in wanted.items() if k}
    unknown = [k for k in weights if k not in names]
    if unknown:
        raise UserError(
            f"There is no part named {', '.join(unknown)} to guide to. Known: {', '.join(names) or 'none'}; "
            "--guidance X without a name goes for all."
        )
    if weights and not parts_weighed(family):
        raise UserError(f"{family.name} guides to all that is asked for alike. Give one number: --guidance 2.")
    return {**rest, "part_guidance": {names[k]: v for k, v in weights.items()}} if weights else rest


def steers(settings: Any) -> bool:
    """Whether sampling with these settings of a family guides at all."""
    found = settings.model_dump(include={"guidance", "part_guidance"})
    return found.get("guidance", 1.0) != 1.0 or bool(found.get("part_guidance"))
