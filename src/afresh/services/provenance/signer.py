"""Whose signature works get: the user's own key, made at first use, or a certificate and key that were given.

The own one is the file `signer.pem` beside the user's secret, readable by the user alone: the key, its certificates,
and those of before it was renewed. `certificate.pem` beside it is for others, who trust it by `afresh verify WORKS
--trust-signer certificate.pem`. A certificate of one's own is given by the preferences `certificate` and
`certificate_key`, an authority that says when a work was signed by `timestamp_url`.
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

from afresh.core import UserError, events
from afresh.data.preferences import Preferences, preferences
from afresh.data.storage.files import new_file, readable, start_of
from afresh.data.storage.lock import open_locked
from afresh.services.provenance.certificates import (
    OWN_PURPOSES,
    Certificate,
    algorithm_of,
    certificates_for,
    fingerprint,
    loaded,
    profile_fault,
    purposes_of,
    time_fault,
)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
FILE = "signer.pem"
MOST_BYTES = 1 << 23  # of a file of certificates; the list of C2PA has some tens of kilobytes
OWN = {purpose.dotted_string for purpose in OWN_PURPOSES}
OWN_CHAIN = 2  # certificates of the user's own key at a time: its own, and that of its issuer
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
        """The name of the algorithm in JOSE: ES256, ES384 or EdDSA."""
        algorithm = algorithm_of(self.key.public_key())
        assert algorithm is not None
        return algorithm

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
    """The signer in force, made if none exists. Raises UserError if it cannot be made or may not sign, with what to
    do about it."""
    given = preferences()
    if given.certificate is None and given.certificate_key is None:
        return _own_signer(given)
    if given.certificate is None or given.certificate_key is None:
        missing = "certificate" if given.certificate is None else "certificate_key"
        raise UserError(f"A certificate and its key are given together: {missing} is not set.", "signer")
    chain = read_certificates(given.certificate)
    key = _key(given.certificate_key)
    return _checked(Signer(key, chain, given.timestamp_url), str(given.certificate), REPLACE)


def _own_signer(given: Preferences) -> Signer:
    file = given.key_folder / FILE
    found = read_certificates(file) if file.exists() else ()
    if not found or not purposes_of(found[0]) >= OWN:
        try:
            _make(file)
        except UserError:
            if not found:
                raise
    again = f"Move {file} and certificate.pem away to sign with a new key"
    return _checked(Signer(_key(file), read_certificates(file)[:OWN_CHAIN], given.timestamp_url), str(file), again)


def own_certificates() -> tuple[Certificate, ...]:
    """The certificates that this user's works are signed with, and were before they were renewed. None is made."""
    given = preferences()
    with contextlib.suppress(UserError):
        if given.certificate is not None:
            return read_certificates(given.certificate)[:1]
        if (file := given.key_folder / FILE).exists():
            return read_certificates(file)[::OWN_CHAIN]
    return ()


def _make(file: Path) -> None:
    """Make the key and its certificates. A key that is there is kept, with new certificates before the earlier ones."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(open_locked(file.with_name(".signer.lock"), mode=0o600, wait=True)):
            old = read_certificates(file) if file.exists() else ()
            if old and purposes_of(old[0]) >= OWN:  # of two processes, the first decides
                return
            key = _key(file) if old else ec.generate_private_key(ec.SECP256R1())
            new = Signer(key, (*certificates_for(key.public_key(), datetime.now(UTC)), *old))
            public = file.with_name("certificate.pem")
            public.write_text(pem_of(new.chain[1::OWN_CHAIN]))
            with new_file(file, 0o600) as stream:
                stream.write(new.key_pem + new.chain_pem)
    except OSError as error:
        raise UserError(
            f"{error.filename or file} cannot be written, so works cannot be signed: {error.strerror or error}. Set "
            "AFRESH_KEY_FOLDER to a folder that may be written.",
            "no_secret",
        ) from error
    if old:
        events.note(
            f"Your certificate was renewed, because other programs refuse the earlier one; your key is the same. Give "
            f"{public} again to those who know you by it.",
            "signer",
        )


def read_certificates(file: Path) -> tuple[Certificate, ...]:
    """The certificates of a PEM file, in its order. Raises UserError if it cannot be read or has none."""
    try:
        with readable(file, "signer"):
            data = start_of(file, MOST_BYTES + 1)
        found = x509.load_pem_x509_certificates(data if len(data) <= MOST_BYTES else b"")  # and not a part of them
        return tuple(loaded(c.public_bytes(serialization.Encoding.DER)) for c in found)
    except ValueError as error:
        raise UserError(
            f"{file} has no certificates in PEM, the form that begins with -----BEGIN CERTIFICATE-----. A file of "
            f"another form is converted by `openssl x509 -inform der -in {file} -out certificate.pem`.",
            "signer",
        ) from error


def _key(file: Path) -> PrivateKey:
    try:
        with readable(file, "signer"):
            data = start_of(file, MOST_BYTES)
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise UserError(
            f"The key in {file} is encrypted. Works are signed without a question, so give one without a password that "
            f"only you can read: `openssl pkey -in {file.name} -out signing.key` and `chmod 600 signing.key`.",
            "signer",
        ) from error
    except ValueError as error:
        raise UserError(f"{file} has no private key in PEM. Accepted is {ACCEPTED}.", "signer") from error
    if isinstance(key, PrivateKey) and algorithm_of(key.public_key()) is not None:
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
