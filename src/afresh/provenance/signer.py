"""Whose signature works get: the user's own key, made at first use, or a certificate and key that were given.

The own one is the file `signer.pem` beside the user's secret, with the key and the certificates, readable by the user
alone; `certificate.pem` beside it is for others, who trust it by `afresh verify WORKS --trust certificate.pem`. A
certificate of one's own is given by the preferences `certificate` and `certificate_key`, an authority that says when a
work was signed by `timestamp_url`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from afresh.core import UserError
from afresh.preferences import Preferences, preferences
from afresh.provenance.certificates import Certificate, fingerprint, loaded, made_here, profile_fault, time_fault

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
FILE = "signer.pem"
ACCEPTED = "a key on the curve P-256 or P-384, or of Ed25519"
REPLACE = (
    "Renew it where it was issued, or unset AFRESH_CERTIFICATE and AFRESH_CERTIFICATE_KEY to sign with your own key"
)


@dataclass(frozen=True)
class Signer:
    """A key, its certificate with those of its issuers, and the URL of a time-stamping authority, if there is one."""

    key: PrivateKey
    chain: tuple[Certificate, ...]
    timestamp_url: str | None = None

    @property
    def algorithm(self) -> str:
        """The name of the algorithm in C2PA: es256, es384 or ed25519."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return "ed25519"
        return {256: "es256", 384: "es384"}[self.key.curve.key_size]

    @property
    def chain_pem(self) -> bytes:
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in self.chain)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def signature(self, data: bytes) -> bytes:
        """The signature over data as COSE and JOSE write it: of a curve, both numbers one after the other (RFC 7518,
        section 3.4)."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        size = self.key.curve.key_size // 8
        made = self.key.sign(data, ec.ECDSA(hashes.SHA256() if size == 32 else hashes.SHA384()))
        return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(made))


def signer() -> Signer:
    """The signer in force, made if there is none. Raises UserError if it cannot be made or may not sign, with what to
    do about it."""
    given = preferences()
    if given.certificate is None and given.certificate_key is None:
        return _own_signer(given)
    if given.certificate is None or given.certificate_key is None:
        missing = "certificate" if given.certificate is None else "certificate_key"
        raise UserError(f"A certificate and its key are given together: {missing} is not set.", "signer")
    chain = _certificates(given.certificate)
    key = _key(given.certificate_key)
    return _checked(Signer(key, chain, given.timestamp_url), str(given.certificate), REPLACE)


def _own_signer(given: Preferences) -> Signer:
    file = given.key_folder / FILE
    if not file.exists():
        _make(file)
    again = f"Move {file} and certificate.pem away to sign with a new key"
    return _checked(Signer(_key(file), _certificates(file), given.timestamp_url), str(file), again)


def own_certificate() -> Certificate | None:
    """The certificate that this user's works are signed with, if there is one. None is made."""
    given = preferences()
    file = given.certificate or given.key_folder / FILE
    with contextlib.suppress(UserError):
        return _certificates(file)[0] if file.exists() else None
    return None


def _make(file: Path) -> None:
    key, chain = made_here(datetime.now(UTC))
    new = Signer(key, tuple(chain))
    aside = file.with_name(f".signer.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(new.key_pem + new.chain_pem)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(aside, file)
            file.with_name("certificate.pem").write_bytes(chain[-1].public_bytes(serialization.Encoding.PEM))
        except FileExistsError:  # of two processes, the first decides
            pass
        finally:
            aside.unlink()
    except OSError as error:
        raise UserError(
            f"{error.filename or file} cannot be written, so works cannot be signed: {error.strerror or error}. Set "
            "AFRESH_KEY_FOLDER to a folder that may be written.",
            "no_secret",
        ) from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(1 << 20)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.", "signer") from error


def _certificates(file: Path) -> tuple[Certificate, ...]:
    return certificates_in(_read(file), str(file))


def certificates_in(data: bytes, where: str) -> tuple[Certificate, ...]:
    """The certificates of a PEM file, in its order. Raises UserError if there is none."""
    try:
        found = x509.load_pem_x509_certificates(data)
        return tuple(loaded(c.public_bytes(serialization.Encoding.DER)) for c in found)
    except ValueError as error:
        raise UserError(
            f"{where} has no certificates in PEM, the form that begins with -----BEGIN CERTIFICATE-----. A file of "
            f"another form is converted by `openssl x509 -inform der -in {where} -out certificate.pem`.",
            "signer",
        ) from error


def _key(file: Path) -> PrivateKey:
    data = _read(file)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise UserError(
            f"The key in {file} is encrypted. Works are signed without a question, so give one without a password that "
            f"only you can read: `openssl pkey -in {file.name} -out signing.key` and `chmod 600 signing.key`.",
            "signer",
        ) from error
    except ValueError as error:
        raise UserError(f"{file} has no private key in PEM. Accepted is {ACCEPTED}.", "signer") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size in (256, 384):
        return key
    raise UserError(f"The key in {file} is none that works are signed with. Accepted is {ACCEPTED}.", "signer")


def _checked(found: Signer, where: str, advice: str) -> Signer:
    leaf = found.chain[0]
    if leaf.public_key() != found.key.public_key():
        raise UserError(
            f"The key does not belong to the first certificate of {where} ({fingerprint(leaf)[:16]}). The certificate "
            "of the signer stands first, and those of its issuers follow.",
            "signer",
        )
    for fault in (profile_fault(leaf), time_fault(leaf)):
        if fault:
            raise UserError(f"Works cannot be signed with the certificate in {where}: {fault}. {advice}.", "signer")
    return found


def pem_of(certificates: Sequence[Certificate]) -> str:
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)
