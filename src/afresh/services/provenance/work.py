"""The facts of a generated work, which its signature is over: by which run, model and recipe, when, and from what.

A manifest of C2PA has them as actions, where the content comes from, and the rest under our own name. Section 18.14 of
the specification, version 2.2: the first action is `c2pa.created`, or `c2pa.opened` of a work that another was made
from, which `c2pa.edited` then follows. The source type is a term of IPTC's.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from afresh import __version__
from afresh.core import UserError
from afresh.core.safe_json import faults, parse_json

MOST_BYTES = 1 << 18  # of the facts as JSON: they travel with every work
Name = Annotated[str, StringConstraints(max_length=400)]
Relationship = Literal["parentOf", "inputTo"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Ingredient(BaseModel):
    """What a work was made from. Its content is looked at when the work is signed, so that a manifest in it is kept
    with the work; of a record that was read there is the hash alone. `statement` is the ingredient's own sidecar.

    `relationship` is a term of C2PA: of the work that was edited `parentOf`, of which there is at most one; of what a
    model was given besides `inputTo`.
    """

    model_config = ConfigDict(frozen=True)

    title: Name
    sha256: Sha256
    relationship: Relationship = "parentOf"
    statement: dict[str, JsonValue] | None = None
    content: bytes | None = Field(None, exclude=True, repr=False)

    @classmethod
    def of(
        cls, title: str, content: bytes, sidecar: bytes | None = None, relationship: Relationship = "parentOf"
    ) -> Self:
        """The ingredient of this content. Of a path as a title, only the name is kept. Raises ValueError for what is no
        sidecar."""
        return cls(
            title=PurePath(title).name,
            sha256=hashlib.sha256(content).hexdigest(),
            relationship=relationship,
            statement=None if sidecar is None else parse_json(sidecar),
            content=content,
        )


class Work(BaseModel):
    """The facts of one work.

    `run` is the content hash of the run, `recipe` the request, the settings and the seed, `made` the time with its
    zone, and `mark` how the work was marked imperceptibly (None: it was not).
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    run: Name
    model: Name
    family: Name
    medium: Name
    made: AwareDatetime
    recipe: dict[str, JsonValue]
    ingredients: tuple[Ingredient, ...] = ()
    mark: dict[str, JsonValue] | None = None

    @property
    def parent(self) -> Ingredient | None:
        """What was edited, if this is an edit."""
        return next((i for i in self.ingredients if i.relationship == "parentOf"), None)


def work(**facts: Any) -> Work:
    """The record of these facts. Raises UserError if one of them cannot be written as JSON, if they are too large, or
    if there are two parents."""
    try:
        made = Work(**facts)
        size = size_of(made)
    except (ValidationError, ValueError) as error:
        raise UserError(f"These facts of a work cannot be signed: {faults(error)}.", "work_facts") from error
    if size > MOST_BYTES:
        raise UserError(
            f"The facts of a work have {size:,} bytes, and at most {MOST_BYTES:,} are written into it. Shorten the "
            "request that the recipe quotes, or name it by its hash.",
            "work_facts",
        )
    if sum(i.relationship == "parentOf" for i in made.ingredients) > 1:
        raise UserError("A work is an edit of one other work: give the others as relationship='inputTo'.", "work_facts")
    return made


def size_of(facts: Work) -> int:
    """The bytes of the facts as JSON, without the statements about ingredients."""
    return len(facts.model_dump_json(exclude={"ingredients": {"__all__": {"statement"}}}).encode())


def work_of(facts: Any) -> Work | None:
    """The facts that a file of anybody's says; None if they are not such a record."""
    try:
        found = Work.model_validate(facts)
    except ValidationError:
        return None
    return found if size_of(found) <= MOST_BYTES else None


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
