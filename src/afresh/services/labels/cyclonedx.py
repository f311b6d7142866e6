"""A label as a CycloneDX 1.6 bill of materials for machine learning (ML-BOM): https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from afresh import __version__
from afresh.services.collect.record import UNKNOWN
from afresh.services.labels.costs import JOULES_A_KWH
from afresh.services.labels.label import Cost, Label, Part
from afresh.services.labels.run_label import joined
from afresh.services.labels.words import cost_rows

ALGORITHMS = {"sha256": "SHA-256", "blake3": "BLAKE3"}
TYPES = {
    **dict.fromkeys(("model", "reward", "codec"), "machine-learning-model"),
    **dict.fromkeys(("data", "preferences"), "data"),
    "work": "file",
}
NOT_STATED = "not stated"


def cyclonedx(label: Label, scores: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The label as a bill of materials. scores: of the model, as they were measured."""
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tool = {"type": "application", "name": "afresh", "version": __version__}
    sources: dict[str, list[str]] = {label.id: []}
    for part in label.parts:
        sources[part.id] = []
    for link in label.links:
        sources[link.of].append(link.source)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, label.id)}",
        "version": 1,
        "metadata": {"timestamp": time, "tools": {"components": [tool]}, "component": subject(label, scores or {})},
        "components": [component_of(part) for part in label.parts],
        "dependencies": [{"ref": ref, "dependsOn": list(dict.fromkeys(of))} for ref, of in sources.items()],
    }


def subject(label: Label, scores: Mapping[str, float]) -> dict[str, Any]:
    """The component of what the label is of."""
    stated = (label.expression, "concluded") if label.licence is None else (label.licence, "declared")
    made = component(TYPES[label.subject], label.id, label.name, *stated)
    made["description"] = "; ".join(f"{name}: {value}" for name, value in label.facts.items())
    told = [("afresh:consent", label.consent.sentence), *((f"afresh:{name}", text) for name, text in cost_rows(label))]
    told += [("afresh:note", note) for note in label.notes]
    made["properties"] = [{"name": name, "value": value} for name, value in told]
    if label.subject == "model":
        made["modelCard"] = model_card(label, scores)
    return made


def component_of(part: Part) -> dict[str, Any]:
    """The component of something that the subject is made of."""
    names = list(dict.fromkeys(s.licence for s in part.licences))
    expression = None if UNKNOWN in names else joined(names)
    made = component(TYPES[part.kind], part.id, part.name, expression, "declared")
    told = "; ".join(x for x in (part.about and f"the digest is of {part.about}", part.note) if x)
    return made | ({"description": told} if told else {})


def component(type: str, id: str, name: str, expression: str | None, acknowledged: str) -> dict[str, Any]:
    algorithm, _, value = id.partition(":")
    made: dict[str, Any] = {"type": type, "bom-ref": id, "name": name}
    if algorithm in ALGORITHMS:
        made |= {"version": value[:16], "hashes": [{"alg": ALGORITHMS[algorithm], "content": value}]}
    if expression is not None:
        made["licenses"] = [{"expression": expression, "acknowledgement": acknowledged}]
    return made


def model_card(label: Label, scores: Mapping[str, float]) -> dict[str, Any]:
    """The card of a model: what it is, what it learnt from, how good it was measured to be, and its energy."""
    data = [{"ref": p.id} for p in label.parts if p.kind in ("data", "preferences")]
    parameters: dict[str, Any] = {
        "architectureFamily": str(label.facts.get("family", "")),
        "task": str(label.facts.get("modality", "")),
    }
    if data:
        parameters["datasets"] = data
    card: dict[str, Any] = {"modelParameters": parameters}
    if scores:
        measured = [{"type": name, "value": f"{value:.6g}"} for name, value in scores.items()]
        card["quantitativeAnalysis"] = {"performanceMetrics": measured}
    tuned = any(link.of == label.id and (p := label.part(link.source)) and p.kind == "model" for link in label.links)
    used = [("fine-tuning" if tuned else "training", label.training), ("inference", label.work)]
    energy = [consumption(activity, cost) for activity, cost in used if cost is not None]
    considerations: dict[str, Any] = {"technicalLimitations": list(label.notes)} if label.notes else {}
    if energy:
        considerations["environmentalConsiderations"] = {"energyConsumptions": energy}
    return card | ({"considerations": considerations} if considerations else {})


def consumption(activity: str, cost: Cost) -> dict[str, Any]:
    """The energy of an activity. Its provider has to be named, and is not known."""
    amount = {"value": cost.joules / JOULES_A_KWH, "unit": "kWh"}
    provider = {"organization": {"name": NOT_STATED}, "energySource": "unknown", "energyProvided": amount}
    how = [{"name": "afresh:method", "value": cost.method}]
    return {"activity": activity, "energyProviders": [provider], "activityEnergyCost": amount, "properties": how}
