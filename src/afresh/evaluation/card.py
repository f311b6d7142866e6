"""The protocol card: everything that a number depends on besides the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, computed_field

from afresh.core import Item, ItemKind, UserError


class ProtocolCard(BaseModel):
    """How scores were made. Two scores may be compared only under equal cards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str  # of afresh
    modality: str
    split: str  # hash of the contents of the training and the held-out split
    train_size: int
    heldout_size: int
    samples: int  # drawn from the model
    reference: str  # what samples are held against
    reference_size: int
    judges: Mapping[str, str]  # name of every encoder and classifier -> hash of its weights
    seed: int
    sampling: Mapping[str, str | int | float | bool | Mapping[str, float] | None]  # how samples were drawn

    @computed_field  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of all other fields; no date, no machine."""
        content = self.model_dump(exclude={"id"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def split_hash(train: Sequence[Item], heldout: Sequence[Item], kind: ItemKind) -> str:
    """SHA-256 over the contents of both splits, whatever their order."""

    def one(items: Iterable[Item]) -> str:
        return hashlib.sha256("".join(sorted(kind.digest(i.value) for i in items)).encode()).hexdigest()

    return hashlib.sha256(f"train {one(train)} heldout {one(heldout)}".encode()).hexdigest()


def compare(a: ProtocolCard, b: ProtocolCard, differing: Collection[str] = ()) -> None:
    """Refuse to compare scores made under different cards.

    `differing` names the fields that are meant to differ, such as `sampling` when two families are compared.
    Raises UserError naming every other field that does.
    """
    unknown = sorted(set(differing) - set(ProtocolCard.model_fields))
    if unknown:
        raise UserError(f"no such field of a protocol card: {', '.join(unknown)}")
    pairs = [(f, getattr(a, f), getattr(b, f)) for f in ProtocolCard.model_fields if f not in differing]
    lines = [f"  {name}: {_short(x)} against {_short(y)}" for name, x, y in pairs if x != y]
    if lines:
        raise UserError(
            "these numbers were not measured alike, so they cannot be compared; their protocol cards differ in\n"
            + "\n".join(lines)
            + "\nMeasure both again with the same data, number of samples, seed and sampling settings."
        )


def _short(value: object) -> str:
    text = json.dumps(dict(value), sort_keys=True) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
