"""What other programs read of a published catalogue: schema.org, RSS 2.0, a sitemap, and a product feed.

- schema.org Product with an Offer (https://schema.org/Product), as JSON-LD in the page of a listing.
- RSS 2.0 (https://www.rssboard.org/rss-specification).
- Sitemaps 0.9 (https://www.sitemaps.org/protocol.html), of at most 50,000 pages.
- Product data of Google's Merchant Center in RSS 2.0 (https://support.google.com/merchants/answer/7052112).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import format_datetime
from typing import Any
from xml.etree import ElementTree as ET

from afresh.services.catalogue.listing import Listing

MOST_NEWS = 50  # listings in the feed of news
MOST_PAGES = 50_000  # of a sitemap
GOOGLE = "http://base.google.com/ns/1.0"
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
TYPES = {"model": "CreativeWork", "adapter": "CreativeWork", "data": "Dataset", "work": "CreativeWork"}


def licence_url(licence: str) -> str | None:
    """The page of SPDX for a single licence of its list."""
    single = re.fullmatch(r"[A-Za-z0-9.+-]+", licence) and not licence.startswith("LicenseRef-")
    return f"https://spdx.org/licenses/{licence}.html" if single else None


def product(x: Listing, base: str | None) -> dict[str, Any]:
    """A listing as schema.org's Product, which is also a work with a licence."""
    page = None if base is None else at(base, f"listings/{x.id}.html")
    money = x.money
    offer = {
        "@type": "Offer",
        "price": "0" if money is None else money.decimal,
        "priceCurrency": "USD" if money is None else money.currency,  # nothing is nothing in every currency
        "availability": f"https://schema.org/{'InStock' if money is None or x.link else 'OutOfStock'}",
        "url": x.link or page,
    }
    thumb = None if x.preview is None else x.preview.thumbnail
    said: dict[str, Any] = {
        "@context": "https://schema.org",
        "@type": ["Product", TYPES[x.kind]],
        "name": x.title,
        "description": x.summary or x.title,
        "sku": x.id,
        "identifier": f"sha256:{x.bundle.sha256}",
        "url": page,
        "image": None if thumb is None or base is None else at(base, f"previews/{thumb}"),
        "brand": {"@type": "Brand", "name": x.maker} if x.maker else None,
        "license": licence_url(x.licence) or x.licence,
        "usageInfo": x.terms or None,
        "isAccessibleForFree": money is None,
        "offers": {key: value for key, value in offer.items() if value is not None},
    }
    return {key: value for key, value in said.items() if value is not None}


def at(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}"


def _xml(root: ET.Element) -> bytes:
    ET.indent(root, " ")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="utf-8") + b"\n"


def _texts(parent: ET.Element, **texts: str) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = text


def rss(name: str, base: str, newest: Sequence[Listing]) -> bytes:
    """The newest listings."""
    root = ET.Element("rss", version="2.0")
    channel = ET.SubElement(root, "channel")
    _texts(channel, title=name, link=at(base, ""), description=f"What is new in {name}")
    for x in newest:
        item, page = ET.SubElement(channel, "item"), at(base, f"listings/{x.id}.html")
        _texts(item, title=x.title, link=page, guid=page, description=x.summary, pubDate=format_datetime(x.added))
    return _xml(root)


def sitemap(base: str, listings: Sequence[Listing]) -> bytes:
    root = ET.Element("urlset", xmlns=SITEMAP)
    _texts(ET.SubElement(root, "url"), loc=at(base, ""))
    for x in listings[: MOST_PAGES - 1]:
        _texts(ET.SubElement(root, "url"), loc=at(base, f"listings/{x.id}.html"), lastmod=x.added.date().isoformat())
    return _xml(root)


def merchant(name: str, base: str, listings: Sequence[Listing]) -> bytes:
    """What has a price and can be bought, for centres that merchants send their products to."""
    ET.register_namespace("g", GOOGLE)
    root = ET.Element("rss", version="2.0")
    channel = ET.SubElement(root, "channel")
    _texts(channel, title=name, link=at(base, ""), description=f"What {name} offers")
    for x in listings:
        if x.money is None or x.link is None:
            continue
        facts = {
            "id": x.id[:50],
            "title": x.title[:150],
            "description": (x.summary or x.title)[:5000],
            "link": at(base, f"listings/{x.id}.html"),
            "price": str(x.money),
            "availability": "in_stock",
            "condition": "new",
            "identifier_exists": "no",
            "brand": x.maker[:70],
            "product_type": x.kind,
        }
        if x.preview is not None and x.preview.thumbnail is not None:
            facts["image_link"] = at(base, f"previews/{x.preview.thumbnail}")
        item = ET.SubElement(channel, "item")
        for key, value in facts.items():
            if value:
                ET.SubElement(item, f"{{{GOOGLE}}}{key}").text = value
    return _xml(root)
