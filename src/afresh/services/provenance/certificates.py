"""Certificates by C2PA's profile (C2PA 2.2, section 14.5.1): one of the user's own, made here, and checks of given
ones."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")  # c2pa-kp-claimSigning
DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
MAIL = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.4")
# Of a certificate that is made here: C2PA's own purpose, that of its specification before 2.1 (section 14.4.1), and the
# only one that its library accepts by its default settings.
OWN_PURPOSES = (CLAIM_SIGNING, DOCUMENT_SIGNING, MAIL)
# The purposes that a certificate may have to sign claims: these, and an older one of Microsoft.
PURPOSES = (*(purpose.dotted_string for purpose in OWN_PURPOSES), "1.3.6.1.4.1.311.76.59.1.9")
ANY_PURPOSE = "2.5.29.37.0"
# Extensions whose limits are checked here, or are none.
KNOWN = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
YEARS = 20  # without a time-stamping authority a work counts only as long as its signer's certificate
SKEW = timedelta(days=1)  # by which the clock of another machine may be behind
MOST_CERTIFICATES = 8  # of a chain
DIGESTS = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}  # by the end of an algorithm's name
Certificate = x509.Certificate
DAMAGED = (
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def fingerprint(certificate: Certificate) -> str:
    """The SHA-256 of a certificate, in hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def loaded(der: bytes) -> Certificate:
    """A certificate of anybody's. Raises ValueError if a part of it cannot be read, which would show up later."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        _ = certificate.subject, certificate.issuer, certificate.extensions
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.signature_algorithm_oid
    except DAMAGED as error:
        raise ValueError(str(error)) from error
    return certificate


def chain_of(encoded: Any) -> list[Certificate]:
    """The certificates beside a signature, that of the signer first: each as DER, or as base64 of it. Raises ValueError
    or TypeError if there are none or too many, or if one cannot be read."""
    if not isinstance(encoded, list) or not 0 < len(encoded) <= MOST_CERTIFICATES:
        raise ValueError("a signature has no certificate, or too many")
    return [loaded(c if isinstance(c, bytes) else base64.b64decode(c, validate=True)) for c in encoded]


def algorithm_of(key: CertificatePublicKeyTypes) -> str | None:
    """The algorithm of JOSE that works are signed with by a key: EdDSA, ES256 or ES384; None for other keys."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return {256: "ES256", 384: "ES384"}.get(key.key_size)
    return "EdDSA" if isinstance(key, ed25519.Ed25519PublicKey) else None


def check_signature(certificate: Certificate, algorithm: str, data: bytes, signature: bytes) -> None:
    """Check a signature as COSE and JOSE write it (RFC 9053, section 2; RFC 7518, section 3) by the key of a
    certificate. algorithm: EdDSA, or ES or PS with the bits of its hash.

    Raises InvalidSignature, or ValueError if the algorithm is not one of that key.
    """
    key, digest = certificate.public_key(), DIGESTS.get(algorithm[2:])
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm == "EdDSA":
        key.verify(signature, data)
    elif digest and isinstance(key, ec.EllipticCurvePublicKey) and algorithm.startswith("ES"):
        size = (key.key_size + 7) // 8
        if len(signature) != 2 * size:
            raise InvalidSignature
        numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
        key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(digest))
    elif digest and isinstance(key, rsa.RSAPublicKey) and algorithm.startswith("PS"):
        key.verify(signature, data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    else:
        raise ValueError("the algorithm of a signature is not that of its certificate")


def name_of(certificate: Certificate) -> str:
    """The common name of a certificate's subject, and its organisation in brackets."""
    parts = [
        str(attribute.value)
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
        for attribute in certificate.subject.get_attributes_for_oid(oid)[:1]
    ]
    return " (".join(parts) + ")" * (len(parts) - 1) if parts else certificate.subject.rfc4514_string() or "no name"


def is_authority(certificate: Certificate) -> bool:
    """Whether a certificate may issue others."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        return usage.key_cert_sign and certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def purposes_of(certificate: Certificate) -> set[str]:
    """The purposes of a certificate (extended key usage), as dotted numbers; none if it does not state any."""
    try:
        return {p.dotted_string for p in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value}
    except x509.ExtensionNotFound:
        return set()


def certificates_for(public: CertificatePublicKeyTypes, now: datetime) -> list[Certificate]:
    """The certificate of a key, and that of its issuer, whose key is forgotten at once: it can issue no other. The
    names say nothing about the user or the machine, because they are in every signed work."""
    authority = ec.generate_private_key(ec.SECP256R1())
    short = hashlib.sha256(x509.SubjectKeyIdentifier.from_public_key(public).digest).hexdigest()[:8]
    root = certificate_of(f"afresh root {short}", f"afresh root {short}", authority.public_key(), authority, True, now)
    return [certificate_of(f"afresh user {short}", f"afresh root {short}", public, authority, False, now), root]


def certificate_of(
    subject: str,
    issuer: str,
    public: CertificatePublicKeyTypes,
    signed_by: ec.EllipticCurvePrivateKey,
    authority: bool,
    now: datetime,
    lasting: timedelta = timedelta(days=366 * YEARS),
) -> Certificate:
    """A certificate of an authority or of a signer, valid from `SKEW` before `now`."""

    def named(name: str) -> x509.Name:
        organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "self-issued")
        return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, name)])

    # Signatures are the first of nine uses, certificates and lists of revoked ones the sixth and seventh.
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lasting)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), critical=False)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(OWN_PURPOSES), critical=False)
    return builder.sign(signed_by, hashes.SHA256())


def profile_fault(certificate: Certificate) -> str | None:
    """Why a certificate may not sign claims; None if it may. Its time is another question (`time_fault`)."""
    if is_authority(certificate):
        return "it is that of an authority: give the certificate of a signer, which one has issued"
    if certificate.issuer == certificate.subject:
        return "it is signed by itself, which C2PA does not accept: let an authority issue one"
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        for required in (x509.ExtendedKeyUsage, x509.AuthorityKeyIdentifier):
            certificate.extensions.get_extension_for_class(required)
    except x509.ExtensionNotFound as error:
        return f"it has no extension {error.oid._name}, which C2PA requires"
    except ValueError as error:
        return f"its extensions cannot be read: {error}"
    if limits := _limits(certificate):
        return f"it has critical extensions that are not checked here: {', '.join(limits)}"
    if not usage:
        return "its key usage does not allow digital signatures"
    purposes = purposes_of(certificate)
    if not purposes & set(PURPOSES) or ANY_PURPOSE in purposes:
        return f"its extended key usage has none of {', '.join(PURPOSES)}, or allows anything"
    return None


def time_fault(certificate: Certificate, now: datetime | None = None) -> str | None:
    """Whether a certificate has expired or is not valid yet, with the day; None if it is valid."""
    now = now or datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        return f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    return None


def issued_by_known(chain: Sequence[Certificate], anchors: Sequence[Certificate]) -> bool:
    """Whether the first certificate of a chain is one of the anchors, or one of them has issued it, directly or through
    authorities of the chain (RFC 5280, section 6.1).

    `cryptography.x509.verification` is not used: it refuses authorities with a key of Ed25519, which C2PA accepts.
    """
    known = {fingerprint(a) for a in anchors}
    current, left = chain[0], list(chain[1:MOST_CERTIFICATES])
    for below in range(MOST_CERTIFICATES):
        if fingerprint(current) in known:
            return True
        issuer = next((c for c in [*anchors, *left] if _may_issue(c, below) and _issued(current, c)), None)
        if issuer is None or issuer == current:
            return False
        current = issuer
    return False


def _may_issue(issuer: Certificate, below: int) -> bool:
    """Whether an authority may issue certificates now, with so many other authorities between it and the signer. One
    that is bound to certain names, or in another way that is not known here, may not."""
    if not is_authority(issuer) or time_fault(issuer):
        return False
    most = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    purposes = purposes_of(issuer) or {ANY_PURPOSE}
    return not _limits(issuer) and (most is None or below <= most) and bool(purposes & {*PURPOSES, ANY_PURPOSE})


def _limits(certificate: Certificate) -> list[str]:
    """The extensions that limit what a certificate is for in a way that is not checked here (section 4.2)."""
    return [
        e.oid.dotted_string
        for e in certificate.extensions
        if isinstance(e.value, x509.NameConstraints) or (e.critical and not isinstance(e.value, KNOWN))
    ]


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
