"""Who a signer is to this user: the user, a known signer, or nobody known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afresh.provenance.certificates import Certificate, fingerprint, is_authority, issued_by_known, name_of
from afresh.provenance.known_signers import known_certificates
from afresh.provenance.layers import SignedBy
from afresh.provenance.signer import own_certificates


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

    def words(self, signer: SignedBy) -> str:
        return f"you ({signer.name})" if signer.whose == "you" else f"{signer.name}, who is known here"


def trusted() -> Trusted:
    """Whom this user trusts now. Nothing is made."""
    return Trusted(own_certificates(), tuple(known_certificates()))
