"""What can be asked of a run: its conditions, the settings of sampling, and the verbs that its family can do."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PydanticInvalidForJsonSchema, TypeAdapter

from afresh.core import CondSpec, registry
from afresh.engine.sampling.condition_rows import number_range
from afresh.engine.sampling.request import converses, of_kind, writes_text
from afresh.runs.run import Run


def offers(run: Run) -> dict[str, Any]:
    """{makes, size, conditions, guidance, settings, verbs} of a run, as plain values. Raises UserError if it cannot be
    read."""
    space, family = run.encoder.space, run.family
    out: dict[str, Any] = {"makes": run.encoder.kind.plural, "view": run.encoder.kind.view}
    if space.pixels:
        out["size"] = {"width": space.shape[2], "height": space.shape[1], "channels": space.shape[0]}
    if space.timed:
        out["seconds"] = space.longest
    if writes_text(run.encoder, run.space):
        out["context"] = run.space.shape[0]
    guided = run.guided and family.sampling.guided
    return {
        **out,
        "conversations": converses(run.encoder, run.space),
        "conditions": conditions(run),
        "guidance": guided,
        "settings": settings(family.sampling.settings) | settings(run.encoder.kind.result_settings),
        "verbs": verbs(run),
    }


def conditions(run: Run) -> dict[str, Any]:
    """{labels: {name: classes}, numbers: {name: {low, high, mean}}, caption, images}: the numbers as they occurred."""
    spec: CondSpec = run.conds
    numbers = {}
    for name in of_kind(spec, "number"):
        low, high = number_range(spec, run.conditions, name)
        numbers[name] = {"low": low, "high": high, "mean": spec[name].mean}
    captions = of_kind(spec, "prompt", "vector")
    words = [word for name in of_kind(spec, "prompt") for word in spec[name].classes]
    return {
        "labels": {name: list(spec[name].classes) for name in of_kind(spec, "label")},
        "numbers": numbers,
        "caption": bool(captions),
        "words": words,
        "images": of_kind(spec, "aligned"),
    }


def settings(model: type | None) -> dict[str, Any]:
    """The settings of sampling by name, each as a JSON schema with its default. Those that are functions are left
    out."""
    out = {}
    for name, field in getattr(model, "model_fields", {}).items():
        kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        try:
            schema = TypeAdapter(kind).json_schema()
        except PydanticInvalidForJsonSchema:
            continue
        out[name] = {**schema, "default": field.get_default(call_default_factory=True)}
    return out


def verbs(run: Run) -> dict[str, bool]:
    """Which verbs the run can do."""
    text = writes_text(run.encoder, run.space)
    return {
        "infill": run.family.sampling.fills and text,
        "embed": text and run.family.policy is not None and run.family.policy.steps is not None,
        **{name: verb.able(run) is None for name, verb in registry.verbs().items()},
    }
