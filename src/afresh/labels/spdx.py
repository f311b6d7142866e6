"""A label as SPDX 3.0.1 in JSON-LD, with its profiles AI, Dataset and SimpleLicensing.

https://spdx.github.io/spdx-spec/v3.0.1/. Elements are named by digests. What the profiles ask for and nobody has
recorded, as who supplies a model, is written as such; times of release and of building are those of the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from afresh import __version__
from afresh.collect.record import UNKNOWN
from afresh.labels.costs import JOULES_A_KWH
from afresh.labels.label import Cost, Label, Part, Stated
from afresh.labels.run_label import joined
from afresh.labels.words import cost_rows

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
INFO = "_:creation"
PROFILES = ("core", "software", "simpleLicensing", "ai", "dataset")
TYPES = {"text": "text", "image": "image", "sound": "audio"}  # of data sets, by how their items are shown
PURPOSES = {"data": "data", "preferences": "data", "reward": "model", "codec": "model", "model": "model"}
NOT_STATED = "not stated"


def spdx(label: Label, scores: Mapping[str, float] | None = None, now: datetime | None = None) -> dict[str, Any]:
    """The label as an SPDX document. scores: of the model, as they were measured."""
    time = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    root = iri(label.id)
    supplier, tool = f"{root}#supplier", f"{root}#afresh"
    elements: list[dict[str, Any]] = [
        element("Agent", supplier, name=NOT_STATED),
        element("Tool", tool, name=f"afresh {__version__}"),
        subject(label, scores or {}, supplier, time),
        *(part_of(label, part, supplier, time) for part in label.parts),
    ]
    relations = [(iri(link.of), relation_type(label, link.source), iri(link.source), link.how) for link in label.links]
    licences: dict[str, str] = {}
    for part in label.parts:
        if (expression := expression_of(part.licences)) is not None:
            place = licences.setdefault(expression, f"{root}#licence-{len(licences) + 1}")
            relations.append((iri(part.id), "hasDeclaredLicense", place, "as it is stated for it"))
    if label.licence is not None:
        place = licences.setdefault(label.licence, f"{root}#licence-{len(licences) + 1}")
        relations.append((root, "hasDeclaredLicense", place, "as its maker shares it"))
    if label.expression is not None:
        place = licences.setdefault(label.expression, f"{root}#licence-{len(licences) + 1}")
        relations.append((root, "hasConcludedLicense", place, "what follows from what it is made of"))
    elements += [
        element("simplelicensing_LicenseExpression", place, simplelicensing_licenseExpression=expression)
        for expression, place in licences.items()
    ]
    elements += [
        element(
            "Relationship",
            f"{root}#relationship-{n}",
            **{"from": source, "relationshipType": kind, "to": [target], "comment": how},
        )
        for n, (source, kind, target, how) in enumerate(relations, 1)
    ]
    document = element(
        "SpdxDocument",
        f"{root}#document",
        name=f"label of {label.name}",
        profileConformance=list(PROFILES),
        rootElement=[root],
        element=[e["spdxId"] for e in elements],
    )
    creation = {
        "type": "CreationInfo",
        "@id": INFO,
        "specVersion": "3.0.1",
        "created": time,
        "createdBy": [supplier],
        "createdUsing": [tool],
    }
    return {"@context": CONTEXT, "@graph": [creation, document, *elements]}


def iri(id: str) -> str:
    """The name of an element, from the id of a part."""
    algorithm, _, rest = id.partition(":")
    return f"urn:afresh:{algorithm}:{quote(rest, safe='')}"


def element(type: str, id: str, **values: Any) -> dict[str, Any]:
    """An element without what has no value."""
    kept = {k: v for k, v in values.items() if v not in (None, "", [], {})}
    return {"type": type, "spdxId": id, "creationInfo": INFO, **kept}


def relation_type(label: Label, source: str) -> str:
    """How what something is made from relates to it, in the terms of SPDX."""
    part = label.part(source)
    if part is None or part.kind in ("data", "preferences"):
        return "trainedOn"
    return "descendantOf" if part.kind == "model" else "dependsOn"


def subject(label: Label, scores: Mapping[str, float], supplier: str, time: str) -> dict[str, Any]:
    """The element of what the label is of."""
    if label.subject == "data":
        return dataset(label.id, label.name, label.facts, supplier, time, comment=label.consent.sentence)
    about = "; ".join(f"{name}: {value}" for name, value in label.facts.items())
    if label.subject == "work":
        algorithm, _, value = label.id.partition(":")
        hashes = hashes_of((algorithm, value))
        return element("software_File", iri(label.id), name=label.name, comment=about, verifiedUsing=hashes)
    said = "; ".join(f"{name}: {value}" for name, value in cost_rows(label))
    return element(
        "ai_AIPackage",
        iri(label.id),
        name=label.name,
        comment=f"{about}. {label.consent.sentence}",
        ai_typeOfModel=[str(label.facts.get("family", "model"))],
        ai_informationAboutTraining=said,
        ai_limitation=" ".join(label.notes),
        ai_energyConsumption=energy(label),
        ai_metric=[{"type": "DictionaryEntry", "key": name, "value": f"{value:.6g}"} for name, value in scores.items()],
        **package(label.id, supplier, time, "model"),
    )


def part_of(label: Label, part: Part, supplier: str, time: str) -> dict[str, Any]:
    """The element of something that the subject is made of."""
    comment = "; ".join(x for x in (part.about and f"the digest is of {part.about}", part.note) if x)
    if part.kind in ("data", "preferences"):
        facts = label.facts if part.kind == "data" else {}
        return dataset(part.id, part.name, facts, supplier, time, comment, sum(s.items or 0 for s in part.licences))
    values = package(part.id, supplier, time, PURPOSES[part.kind])
    return element("ai_AIPackage", iri(part.id), name=part.name, comment=comment, **values)


def dataset(
    id: str, name: str, facts: Mapping[str, str | int], supplier: str, time: str, comment: str, size: int = 0
) -> dict[str, Any]:
    return element(
        "dataset_DatasetPackage",
        iri(id),
        name=name,
        comment=comment,
        dataset_datasetType=[TYPES.get(str(facts.get("items shown as", "")), "other")],
        dataset_datasetSize=size,
        dataset_hasSensitivePersonalInformation="noAssertion",
        originatedBy=[supplier],
        builtTime=time,
        **package(id, supplier, time, "data"),
    )


def package(id: str, supplier: str, time: str, purpose: str) -> dict[str, Any]:
    """What the profiles ask of every package."""
    algorithm, _, value = id.partition(":")
    hashed = algorithm != "name"
    return {
        "software_packageVersion": value[:16] if hashed else NOT_STATED,
        "software_downloadLocation": f"urn:{algorithm}:{value}" if hashed else iri(id),
        "software_primaryPurpose": purpose,
        "suppliedBy": supplier,
        "releaseTime": time,
        "verifiedUsing": hashes_of((algorithm, value)) if hashed else [],
    }


def hashes_of(digest: tuple[str, str]) -> list[dict[str, str]]:
    return [{"type": "Hash", "algorithm": digest[0], "hashValue": digest[1]}]


def energy(label: Label) -> dict[str, Any] | None:
    """The energy of the model's own training, which of a model that was made from another is that of tuning it, and of
    drawing one work."""
    tuned = any(link.of == label.id and relation_type(label, link.source) == "descendantOf" for link in label.links)
    used = {
        "ai_finetuningEnergyConsumption" if tuned else "ai_trainingEnergyConsumption": label.training,
        "ai_inferenceEnergyConsumption": label.work,
    }
    found = {name: [kilowatt_hours(cost)] for name, cost in used.items() if cost is not None}
    return {"type": "ai_EnergyConsumption", **found} if found else None


def kilowatt_hours(cost: Cost) -> dict[str, Any]:
    return {
        "type": "ai_EnergyConsumptionDescription",
        "ai_energyQuantity": cost.joules / JOULES_A_KWH,
        "ai_energyUnit": "kilowattHour",
    }


def expression_of(licences: tuple[Stated, ...]) -> str | None:
    """The licences of a part as one expression; None if one is unknown, or none is stated."""
    names = list(dict.fromkeys(s.licence for s in licences))
    return None if UNKNOWN in names else joined(names)
