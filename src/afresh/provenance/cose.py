"""Who has signed the claim of a manifest: COSE_Sign1 with the signer's certificates (RFC 9052, 9360; C2PA 2.2, section
13.2).

The library checks the signature too, but does not say which certificate has made it. Whom a user trusts depends on
that, so it is checked here again, by the first certificate, which is the one whose name is shown.
"""

from __future__ import annotations

import io
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from afresh.provenance.certificates import MOST_CERTIFICATES, Certificate, loaded
from afresh.provenance.jumbf import CLAIMS, SIGNATURE, Box

CHAIN = (33, "x5chain")
PADDING = ("pad", "pad2")
HEADERS = (*PADDING, *CHAIN, "sigTst", "sigTst2", "rVals")  # that are not protected
MOST_BYTES = 1 << 18  # of a signature, with its certificates and time stamps
HASHES = {
    -7: hashes.SHA256(), -35: hashes.SHA384(), -36: hashes.SHA512(),
    -37: hashes.SHA256(), -38: hashes.SHA384(), -39: hashes.SHA512(),
}  # fmt: skip


class CoseError(ValueError):
    """A signature that is damaged, or not that of its certificate: the message says why."""


def signer_of(manifest: Box) -> list[Certificate]:
    """The certificates of whoever signed a manifest, that of the signer first. Raises CoseError."""
    content = {box.label: box.content for box in manifest.boxes}
    claims = [content[label] for label in CLAIMS if label in content]
    if SIGNATURE not in content or len(claims) != 1:
        raise CoseError("a manifest does not have one claim and its signature")
    try:
        protected_bytes, unprotected, payload, signature = _decoded(content[SIGNATURE])
        protected = _plain(protected_bytes)
        for name, value in unprotected.items():
            if name not in HEADERS:
                raise CoseError("a signature has a header that C2PA does not know")
            if name in PADDING and value.strip(b"\0"):
                raise CoseError("the padding of a signature is not empty")
        found = _chain(protected, unprotected)
        encoded = [found] if isinstance(found, bytes) else list(found)
        if not 0 < len(encoded) <= MOST_CERTIFICATES or payload is not None:
            raise CoseError("a signature has no certificate, too many, or a content of its own")
        chain = [loaded(c) for c in encoded]
        _check(chain[0], protected[1], cbor2.dumps(["Signature1", protected_bytes, b"", claims[0]]), signature)
        return chain
    except InvalidSignature:
        raise CoseError("the claim is not what was signed") from None
    except (cbor2.CBORDecodeError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise error if isinstance(error, CoseError) else CoseError("a signature cannot be decoded") from None


def _chain(protected: Any, unprotected: Any) -> Any:
    """The header of the certificates: the number comes before the older name, and it may stand in one place only
    (section 14.5 of the specification)."""
    for name in CHAIN:
        found = [header[name] for header in (protected, unprotected) if name in header]
        if len(found) > 1:
            raise CoseError("a signature has two lists of certificates")
        if found:
            return found[0]
    raise CoseError("a signature has no certificate")


def _decoded(data: bytes) -> Any:
    """The four parts of COSE_Sign1, with its tag."""
    if data[:1] != b"\xd2":  # tag 18
        raise CoseError("a signature is not one of COSE")
    return _plain(data[1:])


def _plain(data: bytes) -> Any:
    """The one value of CBOR in the data, without tags: of some, the library computes powers of any size, expressions
    and dates (RFC 8949, section 3.4). The heads of all values follow each other, whatever is inside of what."""
    if len(data) > MOST_BYTES:
        raise CoseError(f"a signature has more than {MOST_BYTES:,} bytes")
    place = 0
    while place < len(data):
        kind, short = data[place] >> 5, data[place] & 31
        extra = 1 << (short - 24) if 24 <= short < 28 else 0
        length = int.from_bytes(data[place + 1 : place + 1 + extra], "big") if extra else short % 31
        if kind == 6:
            raise CoseError("a signature has values that C2PA does not know")
        place += 1 + extra + (length if kind in (2, 3) else 0)
    stream = io.BytesIO(data)
    value = cbor2.CBORDecoder(stream).decode()
    if stream.tell() != len(data):
        raise CoseError("a signature has more than one value")
    return value


def _check(certificate: Certificate, algorithm: int, data: bytes, signature: bytes) -> None:
    """Raises InvalidSignature, KeyError, TypeError or ValueError."""
    key = certificate.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == -8:
        key.verify(signature, data)
    elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm in (-7, -35, -36):
        size = len(signature) // 2
        numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
        key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(HASHES[algorithm]))
    elif isinstance(key, rsa.RSAPublicKey) and algorithm in (-37, -38, -39):
        digest = HASHES[algorithm]
        key.verify(signature, data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    else:
        raise CoseError("the algorithm of a signature is not that of its certificate")
