"""The facts of a work as a manifest of C2PA: actions, where the content comes from, and the rest under our own
name.

Section 18.14 of the specification, version 2.2: the first action is `c2pa.created`, or `c2pa.opened` of a work that
another was made from, which `c2pa.edited` then follows. The source type is a term of IPTC's.
"""

from __future__ import annotations

from typing import Any

from afresh import __version__
from afresh.services.provenance.work import Ingredient, Work

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
FACTS = "org.afresh.work"


def definition(work: Work, media: str) -> dict[str, Any]:
    """The manifest of a work, as the library takes it. Ingredients are added to it by their labels (`label`)."""
    when = work.made.isoformat(timespec="seconds")
    inputs = [label(i) for i, x in enumerate(work.ingredients) if x.relationship == "inputTo"]
    made: dict[str, Any] = {"digitalSourceType": GENERATED, "when": when}
    if work.parent is None:
        actions = [{"action": "c2pa.created", **made, **_over(inputs)}]
    else:
        parent = [label(work.ingredients.index(work.parent))]
        actions = [
            {"action": "c2pa.opened", "when": when, **_over(parent)},
            {"action": "c2pa.edited", **made, **_over(parent + inputs)},
        ]
    return {
        "claim_generator_info": [{"name": "afresh", "version": __version__}],
        "format": media,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions, "allActionsIncluded": True}, "created": True},
            {"label": FACTS, "data": work.model_dump(mode="json"), "created": True},
        ],
    }


def _over(labels: list[str]) -> dict[str, Any]:
    return {"parameters": {"ingredientIds": labels}} if labels else {}


def label(index: int) -> str:
    """The name by which actions refer to an ingredient."""
    return f"ingredient-{index}"


def ingredient(one: Ingredient, index: int) -> dict[str, Any]:
    """An ingredient, as the library takes it."""
    return {
        "title": one.title,
        "relationship": one.relationship,
        "label": label(index),
        "instance_id": f"sha256:{one.sha256}",
    }
