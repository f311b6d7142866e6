"""The label: one frozen record of what something is made of. Everything is named by digests; names are hints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Subject = Literal["model", "data", "work"]


class Frozen(BaseModel):
    """What a label is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stated(Frozen):
    """A licence as it is stated for a part: an expression of SPDX or "unknown", who states it, and for how many items
    and bytes, if that is counted."""

    licence: str
    said_by: str = ""
    items: int | None = None
    bytes: int | None = None


class Part(Frozen):
    """Something that the subject is made of. `id`: ALGORITHM:DIGEST, or "name:" and the hint if no digest is known.

    `about` says in words what the digest is of, and `note` what is not known of the part. `run`: the content hash of
    the run that a model is, where that is here.
    """

    id: str
    kind: Literal["model", "data", "preferences", "reward", "codec"]
    name: str
    about: str = ""
    run: str | None = None
    licences: tuple[Stated, ...] = ()
    note: str = ""


class Link(Frozen):
    """That a part, or the subject, was made from another: `how` completes "`of` was ... `source`", as "tuned from"."""

    of: str
    how: str
    source: str


class Follows(Frozen):
    """A licence that follows from what the subject is made of, what it asks for, and the names of those parts."""

    licence: str
    duties: tuple[str, ...]
    of: tuple[str, ...]


class Consent(Frozen):
    """without_consent: items that show persons of whom no consent is known; None where it was not checked."""

    without_consent: int | None
    sentence: str


class Price(Frozen):
    """An amount of money: a decimal number, the currency of ISO 4217, and the amount in whole minor units."""

    amount: str
    currency: str
    minor_units: int

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


class Cost(Frozen):
    """What something took. joules: measured where the machine tells, else `estimated_joules`, what is estimated from
    seconds alone; `measured`: whether nothing of it is estimated. money: None where no price is stated."""

    seconds: float
    joules: float
    estimated_joules: float
    measured: bool
    method: str
    money: Price | None = None


class Stage(Frozen):
    """What one training took: of the subject, or of a model that it is made from. apart: seconds of it that went to
    something else than steps. known: whether it was counted, or is estimated from the log of an earlier version."""

    name: str
    of: str
    sessions: int
    cost: Cost
    apart: dict[str, float] = {}
    known: bool = True


class Label(Frozen):
    """What a model, a data set or a work is made of.

    `id`: ALGORITHM:DIGEST of its content. `weights`: the digest by which what is made from a model names it; None where
    it was not computed. `facts`: what it is, in a few values. `parts` and `links`: the graph of what
    it is made from. `licences`: those that follow, and `expression` all of them as one expression of SPDX; None where
    one is unknown. `stages`: its training, and that of the models that it is made from, as far as they are here.
    `licence`: what it is shared under, if its maker states that.
    `work` and `thousand_works`: what drawing takes, if that was measured. `prices`: what `money` rests on.
    """

    label: Literal[1] = 1
    subject: Subject
    id: str
    name: str
    weights: str | None = None
    facts: dict[str, str | int] = {}
    parts: tuple[Part, ...] = ()
    links: tuple[Link, ...] = ()
    licences: tuple[Follows, ...] = ()
    expression: str | None = None
    licence: str | None = None
    consent: Consent
    stages: tuple[Stage, ...] = ()
    training: Cost | None = None
    work: Cost | None = None
    thousand_works: Cost | None = None
    drawn: int | None = None
    prices: dict[str, Price] = {}
    notes: tuple[str, ...] = ()

    def part(self, id: str) -> Part | None:
        return next((p for p in self.parts if p.id == id), None)
