"""The layer `sidecar`: the signed file beside one that can carry no manifest."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO

from afresh.core.safe_json import parse_json
from afresh.provenance.certificates import profile_fault, time_fault
from afresh.provenance.claim import GENERATED
from afresh.provenance.finding import Layer, Origin, Status
from afresh.provenance.sidecar import MOST_BYTES, Payload, SidecarError, opened
from afresh.provenance.trusted import Trusted

NAME = "sidecar"
CHUNK = 1 << 20


def sidecar_layer(stream: BinaryIO, name: str | None, data: bytes, trusted: Trusted) -> Layer:
    """What a sidecar says about the file in the stream, which is read only if it has the size that was signed."""
    try:
        if len(data) > MOST_BYTES:
            raise SidecarError(f"it has more than {MOST_BYTES:,} bytes")
        payload, chain = opened(_parsed(data))
    except SidecarError as error:
        return Layer(NAME, Status.DAMAGED, f"the sidecar is damaged: {error}")
    signer, origins = trusted.signed_by(chain), _origins(payload)
    leaf = chain[0]
    if not _same(stream, payload):
        status, detail = Status.CHANGED, f"changed since {signer.name} signed it as {payload.name}, or another file"
    elif why := time_fault(leaf):
        status, detail = Status.OUT_OF_TIME, f"signed by {signer.name}, whose certificate does not count: {why}"
    elif why := profile_fault(leaf):
        status, detail = Status.UNKNOWN, f"signed by {signer.name}, whose certificate does not count: {why}"
    elif signer.whose == "unknown":
        status, detail = Status.UNKNOWN, f"unchanged since it was signed by {signer.name}, who is not known here"
    else:
        status, detail = Status.VALID, f"unchanged since it was signed by {trusted.words(signer)}"
    if status is not Status.CHANGED and name is not None and name != payload.name:
        detail += f"; its name was {payload.name}"
    return Layer(NAME, status, detail, signer, None, origins)


def _parsed(data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError:
        raise SidecarError("it is not JSON") from None


def _same(stream: BinaryIO, payload: Payload) -> bool:
    if stream.seek(0, os.SEEK_END) != payload.bytes:
        return False
    stream.seek(0)
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest() == payload.sha256


def _origins(payload: Payload) -> tuple[Origin, ...]:
    """The origins of a work and of what it was made from, each of whose sidecars is checked like the first."""
    out = [Origin(None, payload.generator, payload.digitalSourceType == GENERATED, payload.work)]
    for one in payload.work.ingredients:
        if one.statement is None:
            out.append(Origin(one.title, "", False, None))
            continue
        try:
            inner, _ = opened(one.statement)
        except SidecarError as error:
            out.append(Origin(one.title, "", False, None, (str(error),)))
            continue
        wrong = () if inner.sha256 == one.sha256 else ("its sidecar is that of another file",)
        first, *rest = _origins(inner)
        out += [Origin(one.title, first.generator, first.generated, first.work, wrong), *rest]
    return tuple(out)
