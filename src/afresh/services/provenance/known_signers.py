"""Signers whose works count as known: certificates that the user has added, in the folder `signers` beside the
secret."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization

from afresh.data.preferences import preferences
from afresh.data.storage.files import replace_file
from afresh.services.provenance.certificates import Certificate, fingerprint, name_of
from afresh.services.provenance.signer import read_certificates


def folder() -> Path:
    return preferences().key_folder / "signers"


def trust(file: Path) -> list[str]:
    """Keep the certificates of a PEM file as known signers, and return their names. That of an authority makes known
    whomever it has issued one for. Raises UserError if there is none in the file."""
    found = read_certificates(file)
    for certificate in found:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        replace_file(folder() / f"{fingerprint(certificate)}.pem", pem)
    return [name_of(c) for c in found]


def known_certificates() -> list[Certificate]:
    """The certificates of known signers. Raises UserError if a file of them is damaged."""
    return [certificate for file in sorted(folder().glob("*.pem")) for certificate in read_certificates(file)]
