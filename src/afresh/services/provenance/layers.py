"""What is found out about where a file comes from: a list of layers, each with its status, and what they say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from afresh.services.provenance.work import Work


class Status(StrEnum):
    """The status of a layer, the worst first: the status of a file is the worst of its layers."""

    DAMAGED = "damaged"  # the metadata is truncated, or not what was signed
    CHANGED = "changed"  # the content is not what was signed
    OUT_OF_TIME = "out of time"  # the certificate has expired or is not valid yet
    UNKNOWN = "signer unknown"
    VALID = "valid"
    MARKED = "mark found"  # it was made with the key of a user, and perhaps changed since
    NOTHING = "nothing found"


@dataclass(frozen=True)
class SignedBy:
    """A signer: the name in the certificate, its SHA-256, and whose it is: `you`, `known` or `unknown`."""

    name: str
    fingerprint: str
    whose: str


@dataclass(frozen=True)
class Origin:
    """What was signed about one work: by which program, whether it says that a model made it, and the facts of `Work`
    if it has them. `faults` is what was wrong with the work when the next one was made from it."""

    title: str | None
    generator: str
    generated: bool
    work: Work | None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One layer: its name (`manifest`, `sidecar`, `mark`), its status with a sentence, who signed it, the time that an
    authority has confirmed, and the origins of the work (first) and of what it was made from."""

    name: str
    status: Status
    detail: str
    signer: SignedBy | None = None
    time: datetime | None = None
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """What the layers of a file say."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def status(self) -> Status:
        order = list(Status)
        return min((layer.status for layer in self.layers), key=order.index, default=Status.NOTHING)
