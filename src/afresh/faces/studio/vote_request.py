"""What is asked in a session of votes: which runs, for what, how many pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from afresh.core import UserError
from afresh.core.safe_json import faults
from afresh.runs.run import Run
from afresh.verbs.annotate import PairRequest

Words = Annotated[str, Field(max_length=2_000)]


class VoteRequest(BaseModel):
    """`other`: the second run, empty to compare samples of one. `prompts`: beginnings, one a line. `labels`: the class
    of each label that is not left to chance. `again`: pairs that were decided before are asked once more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1, max_length=255)
    other: str = Field("", max_length=255)
    n: int = Field(20, ge=1, le=1000)
    prompts: str = Field("", max_length=20_000)
    labels: dict[Annotated[str, Field(max_length=255)], Words] = Field(default_factory=dict, max_length=100)
    caption: Words = ""
    question: Words = ""
    seed: int = Field(0, ge=0, le=2**53)
    again: bool = False

    @field_validator("prompts", "caption", "question")
    @classmethod
    def stripped(cls, text: str) -> str:
        return text.replace("\r\n", "\n").strip("\n")

    def wish(self) -> PairRequest:
        prompts = tuple(line for line in self.prompts.split("\n") if line.strip())
        return PairRequest(prompts, self.labels or None, self.caption or None)

    def id(self, owner: str) -> str:
        """The name of the session, the same for the same request by the same person."""
        return hashlib.sha256(f"{owner}\n{self.model_dump_json()}".encode()).hexdigest()[:24]

    def fields(self) -> dict[str, Any]:
        """The fields of a form that asks for the same."""
        values = self.model_dump(exclude={"labels"}, exclude_defaults=True)
        return values | {f"label.{name}": label for name, label in self.labels.items()}


def parse_vote_request(fields: Sequence[tuple[str, Any]]) -> VoteRequest:
    """The request of a form or of an address. Empty fields are left out. Raises UserError."""
    values: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for name, value in fields:
        if value == "":
            continue
        part, _, of = name.partition(".")
        if part == "label" and of:
            labels[of] = value
        else:
            values[name] = value
    try:
        return VoteRequest(**values, **({"labels": labels} if labels else {}))
    except ValidationError as error:
        raise UserError(f"This cannot be asked: {faults(error)}.") from None


def comparable(run: Run, other: Run) -> bool:
    """Whether both make the same kind of items."""
    return run.encoder.kind is other.encoder.kind
