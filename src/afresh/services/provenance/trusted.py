"""Who a signer is to this user: the user, a known signer, or nobody known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afresh.services.provenance.certificates import Certificate, fingerprint, is_authority, issued_by_known, name_of
from afresh.services.provenance.known_signers import known_certificates
from afresh.services.provenance.layers import SignedBy, Status
from afresh.services.provenance.signer import own_certificates


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
    """Whom this user trusts now. Nothing is made."""
    return Trusted(own_certificates(), tuple(known_certificates()))
