"""A signed sidecar: what a file that can carry no manifest says about itself, beside it.

NAME.provenance.json is a JSON Web Signature in the flattened JSON form (RFC 7515, section 7.2.2) over the SHA-256 of
the
file and the facts of the work, with the signer's certificates in the header `x5c` (section 4.1.6). Every library for
JOSE reads it. The file is known by its hash and size; its name is a hint, which no path is ever made of.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from afresh import __version__
from afresh.core import UserError
from afresh.core.safe_json import parse_json
from afresh.provenance.certificates import MOST_CERTIFICATES, Certificate, loaded
from afresh.provenance.claim import GENERATED
from afresh.provenance.signer import Signer
from afresh.provenance.work import Name, Sha256, Work

MOST_BYTES = 1 << 20  # of a sidecar
FIELDS = ("payload", "protected", "signature")
KIND = "afresh-provenance+jws"
ALGORITHMS = {"es256": "ES256", "es384": "ES384", "ed25519": "EdDSA"}
PlainName = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")]


class Payload(BaseModel):
    """What is signed: the file by its name, size and hash, the facts of the work, and the hashes of the statements
    about
    what it was made from, which stand beside the signature so that a chain of edits grows by one statement an edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    bytes: int = Field(ge=0)
    sha256: Sha256
    generator: Name
    digitalSourceType: Name
    work: Work
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
    payload = {
        "name": name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "generator": f"afresh {__version__}",
        "digitalSourceType": GENERATED,
        "work": work.model_dump(mode="json", exclude={"ingredients": {"__all__": {"statement"}}}),
        "statements": _digest(statements),
    }
    certificates = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in signer.chain]
    header = {"alg": ALGORITHMS[signer.algorithm], "typ": KIND, "x5c": certificates}
    protected, body = _url64(_canonical(header)), _url64(_canonical(payload))
    signature = _url64(signer.signature(f"{protected}.{body}".encode()))
    made: dict[str, Any] = {"payload": body, "protected": protected, "signature": signature}
    if statements:
        made["header"] = {"statements": statements}
    written = (json.dumps(made, indent=1) + "\n").encode()
    if len(written) > MOST_BYTES:
        raise UserError(
            f"The sidecar of {name} would have {len(written):,} bytes, and at most {MOST_BYTES:,} are read: it was "
            "made from too many works. Give the sidecar of the newest of them alone.",
            "work_facts",
        )
    return written


def opened(envelope: Any) -> tuple[Payload, list[Certificate], list[Payload]]:
    """What a sidecar says, the certificates of its signer, whose signature is checked here, and what the statements
    about
    the works that it was made from say, each by its own signature. Whether the signer is known, and whether the file is
    the one that is named, are other questions. Raises SidecarError."""
    if not isinstance(envelope, dict) or sorted(set(envelope) - {"header"}) != sorted(FIELDS):
        raise SidecarError("it does not have the fields payload, protected and signature alone")
    payload, chain = _signed(envelope)
    statements = _beside(envelope)
    if _digest(statements) != payload.statements:
        raise SidecarError("the statements about what it was made from are not those that were signed")
    return payload, chain, [_signed(s)[0] for s in statements]


def _beside(envelope: Any) -> list[Any]:
    """The statements beside a signature. Raises SidecarError if there is anything else."""
    header = envelope.get("header", {"statements": []})
    match header:
        case {"statements": list(found)} if len(header) == 1:
            if all(isinstance(s, dict) and sorted(s) == sorted(FIELDS) for s in found):
                return found
    raise SidecarError("what stands beside its signature is no list of statements")


def _digest(statements: list[Any]) -> str | None:
    """The SHA-256 of statements, in their order; None if there are none."""
    fields = [[str(s[f]) for f in FIELDS] for s in statements]
    return hashlib.sha256(_canonical(fields)).hexdigest() if fields else None


def _signed(statement: Any) -> tuple[Payload, list[Certificate]]:
    """What a statement says, and the certificates of its signer. Raises SidecarError."""
    try:
        protected, body, signature = (str(statement[f]) for f in ("protected", "payload", "signature"))
        header = parse_json(_from_url64(protected))
        encoded = header["x5c"]
        if header["typ"] != KIND or not isinstance(encoded, list) or not 0 < len(encoded) <= MOST_CERTIFICATES:
            raise SidecarError("its header is not that of a sidecar")
        chain = [loaded(base64.b64decode(c, validate=True)) for c in encoded]
        _check(chain[0], str(header["alg"]), f"{protected}.{body}".encode(), _from_url64(signature))
        return Payload.model_validate(parse_json(_from_url64(body))), chain
    except InvalidSignature:
        raise SidecarError("its signature is not that of its certificate") from None
    except ValidationError:
        raise SidecarError("what is signed is not about one file, by a plain name") from None
    except (KeyError, TypeError, ValueError) as error:
        raise SidecarError(str(error) if isinstance(error, SidecarError) else "it cannot be decoded") from None


def _check(certificate: Certificate, algorithm: str, data: bytes, signature: bytes) -> None:
    """Raises InvalidSignature or ValueError."""
    key = certificate.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == "EdDSA":
        key.verify(signature, data)
        return
    sizes: dict[str, tuple[int, hashes.HashAlgorithm]] = {
        "ES256": (32, hashes.SHA256()),
        "ES384": (48, hashes.SHA384()),
    }
    size, digest = sizes[algorithm]
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.key_size != 8 * size or len(signature) != 2 * size:
        raise SidecarError("its algorithm is not that of its certificate")
    numbers = [int.from_bytes(signature[i : i + size], "big") for i in (0, size)]
    key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(digest))


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
