"""Certificates by C2PA's profile (C2PA 2.2, section 14.5.1): one of the user's own, made here, and checks of given
ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")  # c2pa-kp-claimSigning
DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
# The purposes that a certificate may have to sign claims: C2PA's own, documents, mail, and an older one of Microsoft.
PURPOSES = (
    CLAIM_SIGNING.dotted_string,
    DOCUMENT_SIGNING.dotted_string,
    "1.3.6.1.5.5.7.3.4",
    "1.3.6.1.4.1.311.76.59.1.9",
)
YEARS = 20  # without a time-stamping authority a work counts only as long as its signer's certificate
SKEW = timedelta(days=1)  # by which the clock of another machine may be behind
MOST_CERTIFICATES = 8  # of a chain
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


def made_here(now: datetime) -> tuple[ec.EllipticCurvePrivateKey, list[Certificate]]:
    """A new key on P-256 and its certificate, with that of its issuer, whose key is forgotten at once: it can issue no
    other. The names say nothing about the user or the machine, because they are in every signed work."""
    key, authority = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    short = hashlib.sha256(x509.SubjectKeyIdentifier.from_public_key(public).digest).hexdigest()[:8]
    root = certificate_of(f"afresh root {short}", f"afresh root {short}", authority.public_key(), authority, True, now)
    leaf = certificate_of(f"afresh user {short}", f"afresh root {short}", public, authority, False, now)
    return key, [leaf, root]


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

    usage = {
        "digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority,
        "content_commitment": False, "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
        "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + lasting)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), critical=False)
    )
    if not authority:
        # The second is for validators of before version 2.1 of the specification (section 14.4.1).
        builder = builder.add_extension(x509.ExtendedKeyUsage([CLAIM_SIGNING, DOCUMENT_SIGNING]), critical=False)
    return builder.sign(signed_by, hashes.SHA256())


def profile_fault(certificate: Certificate) -> str | None:
    """Why a certificate may not sign claims; None if it may. Its time is another question (`time_fault`)."""
    if is_authority(certificate):
        return "it is that of an authority: give the certificate of a signer, which one has issued"
    if certificate.issuer == certificate.subject:
        return "it is signed by itself, which C2PA does not accept: let an authority issue one"
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound as error:
        return f"it has no extension {error.oid._name}, which C2PA requires"
    except ValueError as error:
        return f"its extensions cannot be read: {error}"
    if not usage:
        return "its key usage does not allow digital signatures"
    purposes = {purpose.dotted_string for purpose in extended}
    if not purposes & set(PURPOSES) or "2.5.29.37.0" in purposes:
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
    authorities of the chain."""
    known = {fingerprint(a) for a in anchors}
    current, left = chain[0], list(chain[1:MOST_CERTIFICATES])
    for _ in range(MOST_CERTIFICATES):
        if fingerprint(current) in known:
            return True
        issuer = next((c for c in [*anchors, *left] if is_authority(c) and _issued(current, c)), None)
        if issuer is None or issuer == current or time_fault(issuer):
            return False
        current = issuer
    return False


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
