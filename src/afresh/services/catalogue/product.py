"""A listing as schema.org's Product with an Offer (https://schema.org/Product), which is JSON-LD in its page."""

from __future__ import annotations

import re
from typing import Any

from afresh.services.catalogue.listing import Listing

TYPES = {"model": "CreativeWork", "adapter": "CreativeWork", "data": "Dataset", "work": "CreativeWork"}


def licence_url(licence: str) -> str | None:
    """The page of SPDX for a single licence of its list."""
    single = re.fullmatch(r"[A-Za-z0-9.+-]+", licence) and not licence.startswith("LicenseRef-")
    return f"https://spdx.org/licenses/{licence}.html" if single else None


def product(x: Listing, base: str | None) -> dict[str, Any]:
    """A listing as schema.org's Product, which is also a work with a licence."""
    money, root = x.money, base and base.rstrip("/")
    page = root and f"{root}/listings/{x.id}.html"
    offer = {
        "@type": "Offer",
        "price": "0" if money is None else money.decimal,
        "priceCurrency": "USD" if money is None else money.currency,  # nothing is nothing in every currency
        "availability": f"https://schema.org/{'InStock' if money is None or x.link else 'OutOfStock'}",
        "url": x.link or page,
    }
    said: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": ["Product", TYPES[x.kind]],
        "name": x.title,
        "description": x.summary or x.title,
        "sku": x.id,
        "identifier": f"sha256:{x.bundle.sha256}",
        "url": page,
        "image": f"{root}/{x.thumbnail}" if root and x.thumbnail else None,
        "brand": {"@type": "Brand", "name": x.maker} if x.maker else None,
        "license": licence_url(x.licence) or x.licence,
        "usageInfo": x.terms or None,
        "isAccessibleForFree": money is None,
        "offers": {key: value for key, value in offer.items() if value is not None},
    }
    return {key: value for key, value in said.items() if value is not None}
