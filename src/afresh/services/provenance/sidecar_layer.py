"""The layer `sidecar`: the signed file beside one that can carry no manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import BinaryIO

from afresh.core.safe_json import MOST_BYTES as MOST_JSON
from afresh.core.safe_json import parse_json
from afresh.services.provenance.certificates import profile_fault, time_fault
from afresh.services.provenance.claim import GENERATED
from afresh.services.provenance.layers import Layer, Origin, Status
from afresh.services.provenance.sidecar import MOST_BYTES, Payload, Purpose, SidecarError, opened, purpose_of
from afresh.services.provenance.trusted import Trusted

NAME = "sidecar"


def sidecar_layer(stream: BinaryIO, name: str | None, data: bytes, trusted: Trusted) -> Layer:
    """What a sidecar says about the file in the stream. It counts only if it was signed as what the file says that it
    is: a work, the index of a catalogue or a receipt."""
    try:
        if len(data) > MOST_BYTES:
            raise SidecarError(f"it has more than {MOST_BYTES:,} bytes")
        stream.seek(0)
        purpose = purpose_of(stream.read(MOST_JSON + 1))
        payload, chain, statements = opened(parse_json(data), purpose)
    except ValueError as error:
        why = str(error) if isinstance(error, SidecarError) else "it is not JSON"
        return Layer(NAME, Status.DAMAGED, f"the sidecar is damaged: {why}")
    signer = trusted.signed_by(chain)
    if _same(stream, payload):
        status, detail = trusted.standing(signer, time_fault(chain[0]), profile_fault(chain[0]))
        detail += "" if purpose is Purpose.WORK else f", as {purpose.words}"
    else:
        status, detail = Status.CHANGED, f"changed since {signer.name} signed it as {payload.name}, or another file"
    if status is not Status.CHANGED and name is not None and name != payload.name:
        detail += f"; its name was {payload.name}"
    return Layer(NAME, status, detail, signer, None, origins_of(payload, statements))


def _same(stream: BinaryIO, payload: Payload) -> bool:
    if stream.seek(0, os.SEEK_END) != payload.bytes:
        return False
    stream.seek(0)
    return hashlib.file_digest(stream, "sha256").hexdigest() == payload.sha256  # type: ignore[arg-type]


def origins_of(payload: Payload, statements: Sequence[Payload]) -> tuple[Origin, ...]:
    """The origins of a work and of what it was made from, as far as there are statements about them."""
    if payload.work is None:
        return ()
    known = {s.sha256: s for s in statements}
    out = [Origin(None, payload.generator, payload.digitalSourceType == GENERATED, payload.work)]
    waiting, seen = list(payload.work.ingredients), {payload.sha256}
    while waiting:
        one = waiting.pop(0)
        inner = known.get(one.sha256)
        if inner is None or inner.work is None:
            out.append(Origin(one.title, "", False, None))
        elif inner.sha256 not in seen:
            seen.add(inner.sha256)
            out.append(Origin(one.title, inner.generator, inner.digitalSourceType == GENERATED, inner.work))
            waiting += inner.work.ingredients
    return tuple(out)
