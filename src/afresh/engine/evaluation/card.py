"""The protocol card: everything that a number depends on besides the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, computed_field

from afresh.core import Item, ItemKind, UserError


class ProtocolCard(BaseModel):
    """How scores were measured. Scores are comparable only if their cards are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str  # of afresh
    modality: str
    split: str  # hash of the contents of the training and the held-out split
    train_size: int
    heldout_size: int
    samples: int  # drawn from the model
    reference: str  # what samples are compared with
    reference_size: int
    judges: Mapping[str, str]  # name of every encoder and classifier -> hash of its weights
    seed: int
    sampling: Mapping[str, str | int | float | bool | Mapping[str, float] | None]  # settings of sampling

    @computed_field  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all other fields, which contain no date and no machine."""
        content = self.model_dump(exclude={"id"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def split_hash(train: Sequence[Item], heldout: Sequence[Item], kind: ItemKind) -> str:
    """SHA-256 over the contents of both splits, independent of their order."""

    def one(items: Iterable[Item]) -> str:
        return hashlib.sha256("".join(sorted(kind.digest(i.value) for i in items)).encode()).hexdigest()

    return hashlib.sha256(f"train {one(train)} heldout {one(heldout)}".encode()).hexdigest()


def compare(a: ProtocolCard, b: ProtocolCard, differing: Collection[str] = ()) -> None:
    """Check that scores under two cards may be compared.

    `differing` names the fields that are meant to differ, such as `sampling` when two families are compared.
    Raises UserError naming every other field that differs.
    """
    unknown = sorted(set(differing) - set(ProtocolCard.model_fields))
    if unknown:
        raise UserError(f"A protocol card has no field {', '.join(unknown)}.")
    pairs = [(f, getattr(a, f), getattr(b, f)) for f in ProtocolCard.model_fields if f not in differing]
    lines = [f"{name}: {_short(x)} and {_short(y)}" for name, x, y in pairs if x != y]
    if lines:
        raise UserError(
            "These scores were measured in different ways and cannot be compared. Measure both with the same data, "
            "number of samples, seed and sampling settings. Their protocol cards differ in",
            lines=lines,
        )


def _short(value: object) -> str:
    text = json.dumps(dict(value), sort_keys=True) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
