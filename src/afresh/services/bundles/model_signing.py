"""The signature of a bundle, in the format of the OpenSSF's model signing (OMS), version 1.0.

It is a bundle of Sigstore (version 0.3) with a chain of certificates and a DSSE envelope, which holds a statement of
in-toto with the predicate https://model_signing/signature/v1.0: the files with their hashes. So `model-signing verify
certificate` accepts the folder of an unpacked bundle. Sources: https://github.com/ossf/model-signing-spec,
https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md, and model-signing 1.1.1.

What bundles need beyond that stands in the predicate as `afresh`, a field that other readers pass over: the kind, the
facts, the sizes of files and the fingerprints of the certificates, so that these are signed too.

The package model-signing is not used: it takes its key from a file alone, reads folders and not streams, does not say
who has signed, and brings 13 further packages (sigstore, tuf, dnspython and others) for a way of signing that needs the
network. A test compares the two.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from afresh.core import UserError
from afresh.core.safe_json import faults, parse_json
from afresh.services.bundles.layout import SIGNATURE, clash, name_fault
from afresh.services.provenance.certificates import Certificate, chain_of, fingerprint
from afresh.services.provenance.signer import Signer
from afresh.services.provenance.work import Sha256

MOST_BYTES = 1 << 25  # of a signature, as `parse_json` reads
MOST_FILES = 50_000
MOST_SIZE = 1 << 44  # bytes of a file
MOST_FACTS = 1 << 18  # bytes of the facts, as JSON
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
FORMAT, VERSION = "afresh-bundle", 1
METHOD = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE]}
Kind = Literal["model", "adapter", "data", "work"]


class SignatureError(ValueError):
    """A signature that is damaged, or not that of its certificate: the message says why."""


class Listed(BaseModel):
    """A file of a bundle."""

    model_config = ConfigDict(frozen=True)
    name: str
    size: int = Field(ge=0, le=MOST_SIZE)
    sha256: Sha256


class Statement(BaseModel):
    """What is signed. `name` is that of the folder, a hint of which no path is made."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    kind: Kind
    made: AwareDatetime
    facts: dict[str, JsonValue]
    files: Annotated[tuple[Listed, ...], Field(min_length=1, max_length=MOST_FILES)]

    def payload(self, chain: tuple[Certificate, ...]) -> bytes:
        """The statement of in-toto."""
        resources = [{"name": f.name, "algorithm": "sha256", "digest": f.sha256} for f in self.files]
        digest = hashlib.sha256(b"".join(bytes.fromhex(f.sha256) for f in self.files)).hexdigest()
        made = self.made.astimezone(UTC).isoformat(timespec="seconds")
        own: dict[str, Any] = {"format": FORMAT, "version": VERSION, "kind": self.kind, "made": made}
        own |= {"facts": self.facts, "sizes": [f.size for f in self.files]}
        own["certificates"] = [fingerprint(c) for c in chain]
        subject = [{"name": self.name, "digest": {"sha256": digest}}]
        predicate = {"serialization": METHOD, "resources": resources, "afresh": own}
        stated = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
        return canonical(stated)


def statement(name: str, kind: str, facts: dict[str, Any], files: tuple[Listed, ...]) -> Statement:
    """The statement of a bundle that is made now. Raises UserError if it cannot be signed."""
    try:
        made = Statement.model_validate(
            {"name": name, "kind": kind, "made": datetime.now(UTC).replace(microsecond=0), "facts": facts,
             "files": files}
        )  # fmt: skip
        size = len(canonical(made.facts))
        if size > MOST_FACTS:
            raise ValueError(f"facts: they have {size:,} bytes, and at most {MOST_FACTS:,} are signed")
    except ValueError as error:
        raise UserError(f"This bundle cannot be signed: {faults(error)}.", "bundle_facts") from error
    return made


def signed(said: Statement, signer: Signer) -> bytes:
    """The content of model.sig. Raises UserError for a key that the format does not have."""
    if not isinstance(signer.key, ec.EllipticCurvePrivateKey):
        raise UserError(
            "Bundles are signed with a key on the curve P-256 or P-384: the format of model signing has no Ed25519. "
            "Unset AFRESH_CERTIFICATE and AFRESH_CERTIFICATE_KEY to sign with your own key.",
            "signer",
        )
    payload = said.payload(signer.chain)
    signature = signer.key.sign(_to_sign(payload), ec.ECDSA(_hash(signer.key.public_key())))
    data = _envelope(signer.chain, payload, signature)
    if len(data) > MOST_BYTES:
        raise UserError(
            f"The list of files of this bundle would have {len(data):,} bytes, and at most {MOST_BYTES:,} are read. "
            "Put many small files into one archive.",
            "bundle_facts",
        )
    return data


def opened(data: bytes) -> tuple[Statement, tuple[Certificate, ...]]:
    """What a signature says, and the certificates of the signer, whose signature is checked here. Whether the signer is
    known, and whether files are those that were signed, are other questions. Raises SignatureError."""
    try:
        found = parse_json(data)
        encoded = found["verificationMaterial"]["x509CertificateChain"]["certificates"]
        chain = tuple(chain_of([c["rawBytes"] for c in encoded]))
        payload = base64.b64decode(found["dsseEnvelope"]["payload"], validate=True)
        signature = base64.b64decode(found["dsseEnvelope"]["signatures"][0]["sig"], validate=True)
        key = chain[0].public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SignatureError("its certificate is not that of a key on a curve")
        key.verify(signature, _to_sign(payload), ec.ECDSA(_hash(key)))
        stated = parse_json(payload)
        own = stated["predicate"]["afresh"]
        if own["format"] != FORMAT:
            raise SignatureError("it is that of a folder and not of a bundle")
        if own["version"] != VERSION:
            raise SignatureError(f"it is of version {own['version']!r}, and this version of afresh reads {VERSION}")
        pairs = zip(stated["predicate"]["resources"], own["sizes"], strict=True)
        files = [{"name": r["name"], "size": size, "sha256": r["digest"]} for r, size in pairs]
        facts = {key: own[key] for key in ("kind", "made", "facts")}
        said = Statement.model_validate({"name": stated["subject"][0]["name"], **facts, "files": files})
        # Everything is written in one way, so that no other reader can understand it differently.
        if _envelope(chain, payload, signature) != data or said.payload(chain) != payload:
            raise SignatureError("it is not written as the signature of a bundle is")
    except InvalidSignature:
        raise SignatureError("it is not that of its certificate") from None
    except SignatureError:
        raise
    except ValidationError as error:
        raise SignatureError(faults(error)) from None
    except (KeyError, IndexError, TypeError, ValueError):
        raise SignatureError("it cannot be decoded") from None
    for one in said.files:
        if (why := name_fault(one.name)) is not None:
            raise SignatureError(f"it names the file {one.name!r}: {why}")
    if (two := clash(f.name for f in said.files)) is not None:
        raise SignatureError(f"the files {two[0]!r} and {two[1]!r} are one on some systems")
    return said, chain


def _envelope(chain: tuple[Certificate, ...], payload: bytes, signature: bytes) -> bytes:
    der = [base64.b64encode(c.public_bytes(serialization.Encoding.DER)).decode() for c in chain]
    chained = {"x509CertificateChain": {"certificates": [{"rawBytes": c} for c in der]}, "tlogEntries": []}
    signatures = [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": signatures}
    return canonical({"mediaType": MEDIA, "verificationMaterial": chained, "dsseEnvelope": envelope})


def _to_sign(payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE."""
    return f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode() + payload


def _hash(key: ec.EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    """Raises SignatureError for a curve that is not used."""
    found: dict[str, hashes.HashAlgorithm] = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384()}
    if key.curve.name not in found:
        raise SignatureError(f"its key is on the curve {key.curve.name}, and not on P-256 or P-384")
    return found[key.curve.name]


def canonical(value: Any) -> bytes:
    """JSON in one form. Raises ValueError for what has none."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
