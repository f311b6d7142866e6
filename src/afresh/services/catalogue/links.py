"""Links to bundles that are signed and expire: an HMAC-SHA256 of listing, order and time with a key of this user."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlencode

from afresh.core import UserError
from afresh.data.storage.secret import secret_for


@dataclass(frozen=True)
class Link:
    """The right to take the bundle of a listing for an order until a time, in seconds since 1970."""

    listing: str
    order: str
    expires: int


class Links:
    """Signs and checks the links of one catalogue. Raises UserError if there can be no secret."""

    def __init__(self, catalogue: str, base: str) -> None:
        """`catalogue`: its id; `base`: the address by which links begin."""
        secret = secret_for("links to bundles")
        self.key = hmac.digest(secret, f"afresh catalogue links {catalogue}".encode(), "sha256")
        self.base = base

    def _signature(self, link: Link) -> str:
        parts = (link.listing, link.order, str(link.expires))
        return hmac.new(self.key, "\0".join(parts).encode(), sha256).hexdigest()

    def url(self, link: Link) -> str:
        query = {"order": link.order, "expires": link.expires, "signature": self._signature(link)}
        return f"{self.base}/bundles/{link.listing}?{urlencode(query)}"

    def check(self, link: Link, signature: str, now: float) -> None:
        """Raises UserError for a link that was not signed here (code `forged`), or is over (`expired`)."""
        if not hmac.compare_digest(self._signature(link).encode(), signature.encode()):
            raise UserError(
                "This link was not made by this catalogue, or was changed. Use the one you were sent.", "forged"
            )
        if now >= link.expires:
            raise UserError(
                "This link has expired. Ask the seller for a new one, with the number of the order.", "expired"
            )
