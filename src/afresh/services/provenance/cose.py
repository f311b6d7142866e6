"""Who has signed the claim of a manifest: COSE_Sign1 with the signer's certificates (RFC 9052, 9360; C2PA 2.2, section
13.2).

The library checks the signature too, but says of the certificate that has made it names and a serial number alone,
which anybody can repeat. Whom a user trusts depends on the certificate, so the signature is checked here again, by the
first certificate, which is the one whose name is shown.
"""

from __future__ import annotations

import io
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature

from afresh.services.provenance.certificates import Certificate, chain_of, check_signature
from afresh.services.provenance.jumbf import CLAIMS, SIGNATURE, Box

CHAIN = (33, "x5chain")
PADDING = ("pad", "pad2")
HEADERS = (*PADDING, *CHAIN, "sigTst", "sigTst2", "rVals")  # that are not protected
MOST_BYTES = 1 << 18  # of a signature, with its certificates and time stamps
ALGORITHMS = {-7: "ES256", -35: "ES384", -36: "ES512", -37: "PS256", -38: "PS384", -39: "PS512", -8: "EdDSA"}


class CoseError(ValueError):
    """A signature that is damaged, or not that of its certificate: the message says why."""


def signer_of(manifest: Box) -> list[Certificate]:
    """The certificates of the signer of a manifest, that of the signer first. Raises CoseError."""
    content = {box.label: box.content for box in manifest.boxes}
    claims = [content[label] for label in CLAIMS if label in content]
    if SIGNATURE not in content or len(claims) != 1:
        raise CoseError("a manifest does not have one claim and its signature")
    try:
        if content[SIGNATURE][:1] != b"\xd2":  # tag 18
            raise CoseError("a signature is not one of COSE")
        protected_bytes, unprotected, payload, signature = _plain(content[SIGNATURE][1:])
        protected = _plain(protected_bytes)
        for name, value in unprotected.items():
            if name not in HEADERS:
                raise CoseError("a signature has a header that C2PA does not know")
            if name in PADDING and value.strip(b"\0"):
                raise CoseError("the padding of a signature is not empty")
        found = _chain(protected, unprotected)
        if payload is not None:
            raise CoseError("a signature has a content of its own")
        chain = chain_of([found] if isinstance(found, bytes) else found)
        signed = cbor2.dumps(["Signature1", protected_bytes, b"", claims[0]])
        check_signature(chain[0], ALGORITHMS[protected[1]], signed, signature)
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
