"""The settings of a family's sampler, checked against what the family and the model support."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from afresh.core import CondSpec, Family, ItemKind, UserError
from afresh.core.options import problems


def of_results(kind: ItemKind, chosen: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into those of a family and those of `ItemKind.result_settings`. Raises UserError for an invalid
    value of the latter."""
    model = kind.result_settings
    own = {k: v for k, v in chosen.items() if model is not None and k in model.model_fields}
    if own and model is not None:
        try:
            model(**own)
        except ValidationError as e:
            raise UserError(f"Settings of {kind.plural} that were drawn: {problems(e, model)}.") from e
    return {k: v for k, v in chosen.items() if k not in own}, own


def of_sampling(family: Family, chosen: Mapping[str, Any], guidable: bool, also: Iterable[str] = ()) -> Any:
    """Validate the sampling settings of a family. `guidable`: whether the model was also trained without conditions.
    `also`: the names of settings that are known beside them.

    Raises UserError for an unknown setting, for an invalid value, and for guidance if the model does not support it.
    """
    known = family.sampling.settings.model_fields  # type: ignore[attr-defined]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise UserError(
            f"{family.name} does not know {', '.join(unknown)} when sampling. It accepts: {', '.join([*known, *also])}."
        )
    try:
        settings = family.sampling.settings(**chosen)
    except ValidationError as e:
        raise UserError(f"Sampling settings of {family.name}: {problems(e, family.sampling.settings)}.") from e
    if chosen.get("guidance", 1.0) != 1.0 or (parts_weighed(family) and chosen.get("part_guidance")):
        if not guidable:
            raise UserError(
                "This model is unconditional, so there is nothing to guide towards. Leave `guidance` out, or "
                "train on data with labels (class folders, metadata.jsonl)."
            )
        if not family.sampling.guided:
            raise UserError(
                f"Guidance is not supported for {family.name}: no gain of it was measured "
                "(docs/results/support.md). Leave `guidance` out."
            )
    return settings


def parts_weighed(family: Family) -> bool:
    """Whether each part of a condition can have its own guidance weight, by the setting `part_guidance`."""
    return "part_guidance" in family.sampling.settings.model_fields  # type: ignore[attr-defined]


def of_guidance(family: Family, spec: CondSpec, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Split guidance by part, {"guidance": {"caption": 3, "": 2}}, into `guidance` and `part_guidance`.

    `guidance` applies to all parts that are not named, and `part_guidance` to the named ones. "caption" names the
    caption, whatever its part is called. Raises UserError for an unknown part, and if the family does not support
    weights by part.
    """
    guidance = chosen.get("guidance")
    if not isinstance(guidance, Mapping):
        return dict(chosen)
    rest = {k: v for k, v in chosen.items() if k != "guidance"}
    if "" in guidance:
        rest["guidance"] = guidance[""]
    names = {"caption" if p.kind in ("prompt", "vector") else k: k for k, p in spec.items()} | {k: k for k in spec}
    weights = {k: v for k, v in guidance.items() if k}
    unknown = [k for k in weights if k not in names]
    if unknown:
        raise UserError(
            f"No part named {', '.join(unknown)} to guide towards. Known: {', '.join(names) or 'none'}. "
            "`guidance` with a single number applies to all parts."
        )
    if weights and not parts_weighed(family):
        raise UserError(f"{family.name} has one guidance weight for all parts. Give one number: `guidance=2`.")
    return {**rest, "part_guidance": {names[k]: v for k, v in weights.items()}} if weights else rest


def steers(settings: Any) -> bool:
    """Whether sampling with these settings of a family uses guidance."""
    values = settings.model_dump(include={"guidance", "part_guidance"})
    return values.get("guidance", 1.0) != 1.0 or bool(values.get("part_guidance"))
