"""Who a signer is to this user: the user, a known signer, or unknown. Known are the signers whose certificates the
user has added, in the folder `signers` beside the secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from afresh.data.preferences import preferences
from afresh.data.storage.files import replace_file
from afresh.services.provenance.certificates import Certificate, fingerprint, is_authority, issued_by_known, name_of
from afresh.services.provenance.layers import SignedBy, Status
from afresh.services.provenance.signer import own_certificates, read_certificates


def folder() -> Path:
    return preferences().key_folder / "signers"


def trust(file: Path) -> list[str]:
    """Keep the certificates of a PEM file as known signers, and return their names. That of an authority makes known
    whomever it has issued one for. Raises UserError if none exists in the file."""
    found = read_certificates(file)
    for certificate in found:
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        replace_file(folder() / f"{fingerprint(certificate)}.pem", pem)
    return [name_of(c) for c in found]


@dataclass(frozen=True)
class Trusted:
    """The user's own certificates, and those of known signers."""

    own: tuple[Certificate, ...]
    known: tuple[Certificate, ...]

    @property
    def authorities(self) -> list[Certificate]:
        return [c for c in self.known if is_authority(c)]

    def signed_by(self, chain: Sequence[Certificate]) -> SignedBy:
        """The signer with these certificates, that of the signer first."""
        mark = fingerprint(chain[0])
        if mark in map(fingerprint, self.own):
            whose = "you"
        else:
            whose = "known" if issued_by_known(chain, self.known) else "unknown"
        return SignedBy(name_of(chain[0]), mark, whose)

    def standing(self, signer: SignedBy, late: str | None, unfit: str | None) -> tuple[Status, str]:
        """The status of a work that is what was signed, and a sentence. late, unfit: why the certificate does not count
        by its time or its profile."""
        if late or unfit:
            status = Status.OUT_OF_TIME if late else Status.UNKNOWN
            return status, f"signed by {signer.name}, whose certificate does not count: {late or unfit}"
        since = "unchanged since it was signed by"
        if signer.whose == "unknown":
            return Status.UNKNOWN, f"{since} {signer.name}, who is not known here"
        who = f"you ({signer.name})" if signer.whose == "you" else f"{signer.name}, who is known here"
        return Status.VALID, f"{since} {who}"


def trusted() -> Trusted:
    """Whom this user trusts now. Nothing is made. Raises UserError if a file of known signers is damaged."""
    files = sorted(folder().glob("*.pem"))
    return Trusted(own_certificates(), tuple(c for file in files for c in read_certificates(file)))
