"""A signed sidecar: what a file that can carry no manifest says about itself, beside it.

NAME.provenance.json is a JSON Web Signature in the flattened JSON form (RFC 7515, section 7.2.2) over the SHA-256 of
the file, with the signer's certificates in the header `x5c` (section 4.1.6) and its purpose in the header `typ`
(section 4.1.9). Every library for JOSE reads it. The file is known by its hash and size; its name is a hint, which no
path is ever made of.

Who asks a server for a text can dictate it, and gets it signed. So a reader asks for the purpose that it needs, and no
content makes the signature over a work one over a catalogue or a receipt.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from afresh import __version__
from afresh.core import UserError
from afresh.core.safe_json import MOST_BYTES as MOST_JSON
from afresh.core.safe_json import parse_json
from afresh.services.provenance.certificates import (
    Certificate,
    algorithm_of,
    chain_of,
    check_signature,
    profile_fault,
    time_fault,
)
from afresh.services.provenance.layers import Layer, Origin, Status
from afresh.services.provenance.signer import Signer
from afresh.services.provenance.trusted import Trusted
from afresh.services.provenance.work import GENERATED, Name, Sha256, Work

MOST_BYTES = 1 << 20  # of a sidecar
FIELDS = ("payload", "protected", "signature")
PlainName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")]


class Purpose(StrEnum):
    """What a file is signed as. A file of JSON says it by its field `format`, which is the purpose without `+jws`."""

    WORK = "afresh-provenance+jws"
    CATALOGUE = "afresh-catalogue+jws"
    RECEIPT = "afresh-receipt+jws"

    @property
    def words(self) -> str:
        return {"WORK": "a generated work", "CATALOGUE": "the index of a catalogue", "RECEIPT": "a receipt"}[self.name]


class Payload(BaseModel):
    """What is signed of a file: its name, size and hash, and the program; of a work besides its facts, and the hash of
    the statements about what it was made from, which stand beside the signature so that a chain of edits grows by one
    statement an edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    bytes: int = Field(ge=0)
    sha256: Sha256
    generator: Name
    digitalSourceType: Name | None = None
    work: Work | None = None
    statements: Sha256 | None = None


class SidecarError(ValueError):
    """A sidecar that is damaged, or not what was signed: the message says why."""


def sidecar(content: bytes, name: str, work: Work, signer: Signer) -> bytes:
    """The sidecar of a file with this content and name. Raises UserError if it would be too large."""
    statements = [
        dict(zip(FIELDS, fields, strict=True))
        for fields in dict.fromkeys(
            tuple(str(known[f]) for f in FIELDS)
            for one in work.ingredients
            if one.statement is not None
            for known in [one.statement, *_beside(one.statement)]
        )
    ]
    facts = {
        "digitalSourceType": GENERATED,
        "work": work.model_dump(mode="json", exclude={"ingredients": {"__all__": {"statement"}}}),
        "statements": _digest(statements),
    }
    written = signed_statement(content, name, Purpose.WORK, signer, facts, statements)
    if len(written) > MOST_BYTES:
        raise UserError(
            f"The sidecar of {name} would have {len(written):,} bytes, and at most {MOST_BYTES:,} are read: it was "
            "made from too many works. Give the sidecar of the newest of them alone.",
            "work_facts",
        )
    return written


def signed_statement(
    content: bytes, name: str, purpose: Purpose, by: Signer, facts: Mapping[str, Any] = {}, beside: Sequence[Any] = ()
) -> bytes:
    """The sidecar of a file that is signed for a purpose, with further facts, and statements beside the signature."""
    payload = {
        "name": name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "generator": f"afresh {__version__}",
        **facts,
    }
    certificates = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in by.chain]
    header = {"alg": by.algorithm, "typ": purpose, "x5c": certificates}
    protected, body = _url64(_canonical(header)), _url64(_canonical(payload))
    signature = _url64(by.signature(f"{protected}.{body}".encode()))
    made: dict[str, Any] = {"payload": body, "protected": protected, "signature": signature}
    if beside:
        made["header"] = {"statements": beside}
    return (json.dumps(made, indent=1) + "\n").encode()


def purpose_of(content: bytes) -> Purpose:
    """What a file says that it is: a file of JSON by its format, and every other one is a work."""
    try:
        return Purpose(f"{parse_json(content)['format']}+jws")
    except (LookupError, TypeError, ValueError):
        return Purpose.WORK


def opened(envelope: Any, purpose: Purpose = Purpose.WORK) -> tuple[Payload, list[Certificate], list[Payload]]:
    """What a sidecar for this purpose says, the certificates of its signer, whose signature is checked here, and what
    the statements about the works that it was made from say, each by its own signature. Whether the signer is known,
    and whether the file is the one that is named, are other questions. Raises SidecarError."""
    if not isinstance(envelope, dict) or sorted(set(envelope) - {"header"}) != sorted(FIELDS):
        raise SidecarError("it does not have the fields payload, protected and signature alone")
    payload, chain = _signed(envelope, purpose)
    statements = _beside(envelope)
    if _digest(statements) != payload.statements:
        raise SidecarError("the statements about what it was made from are not those that were signed")
    return payload, chain, [_signed(s, Purpose.WORK)[0] for s in statements]


def _beside(envelope: Any) -> list[Any]:
    """The statements beside a signature. Raises SidecarError if there is anything else."""
    header = envelope.get("header", {"statements": []})
    match header:
        case {"statements": list(found)} if len(header) == 1:
            if all(isinstance(s, dict) and sorted(s) == sorted(FIELDS) for s in found):
                return found
    raise SidecarError("what stands beside its signature is not a list of statements")


def _digest(statements: list[Any]) -> str | None:
    """The SHA-256 of statements, in their order; None if there are none."""
    fields = [[str(s[f]) for f in FIELDS] for s in statements]
    return hashlib.sha256(_canonical(fields)).hexdigest() if fields else None


def _signed(statement: Any, purpose: Purpose) -> tuple[Payload, list[Certificate]]:
    """What a statement of this purpose says, and the certificates of its signer. Raises SidecarError."""
    try:
        protected, body, signature = (str(statement[f]) for f in ("protected", "payload", "signature"))
        header = parse_json(_from_url64(protected))
        if (given := Purpose(header["typ"])) is not purpose:
            raise SidecarError(f"it was signed as {given.words}, and not as {purpose.words}")
        chain = chain_of(header["x5c"])
        if header["alg"] != algorithm_of(chain[0].public_key()):
            raise SidecarError("its algorithm is not that of its certificate")
        check_signature(chain[0], header["alg"], f"{protected}.{body}".encode(), _from_url64(signature))
        payload = Payload.model_validate(parse_json(_from_url64(body)))
        if (purpose is Purpose.WORK) != (payload.work is not None):
            raise SidecarError(f"it does not have the facts of {purpose.words}")
        return payload, chain
    except InvalidSignature:
        raise SidecarError("its signature is not that of its certificate") from None
    except ValidationError:
        raise SidecarError("what is signed is not about one file, by a plain name") from None
    except (KeyError, TypeError, ValueError) as error:
        raise SidecarError(str(error) if isinstance(error, SidecarError) else "it cannot be decoded") from None


def _canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_url64(text: str) -> bytes:
    """The bytes of a text in base64url, of which each has exactly one such text."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _url64(data) != text:
        raise SidecarError("it is not written in base64url")
    return data


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
        return Layer("sidecar", Status.DAMAGED, f"the sidecar is damaged: {why}")
    signer = trusted.signed_by(chain)
    if _same(stream, payload):
        status, detail = trusted.standing(signer, time_fault(chain[0]), profile_fault(chain[0]))
        detail += "" if purpose is Purpose.WORK else f", as {purpose.words}"
    else:
        status, detail = Status.CHANGED, f"changed since {signer.name} signed it as {payload.name}, or another file"
    if status is not Status.CHANGED and name is not None and name != payload.name:
        detail += f"; its name was {payload.name}"
    return Layer("sidecar", status, detail, signer, None, origins_of(payload, statements))


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
