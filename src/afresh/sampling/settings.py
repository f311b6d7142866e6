"""The settings of a family's sampler, checked against what the family and the model support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from afresh.core import CondSpec, Family, UserError
from afresh.core.options import problems


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
            "`guidance` with one number applies to all parts."
        )
    if weights and not parts_weighed(family):
        raise UserError(f"{family.name} guides to all that is asked for alike. Give one number: `guidance=2`.")
    return {**rest, "part_guidance": {names[k]: v for k, v in weights.items()}} if weights else rest


def steers(settings: Any) -> bool:
    """Whether sampling with these settings of a family guides at all."""
    found = settings.model_dump(include={"guidance", "part_guidance"})
    return found.get("guidance", 1.0) != 1.0 or bool(found.get("part_guidance"))
