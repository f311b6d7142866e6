"""The static site of a catalogue: it opens from a folder and can be put on any host."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from afresh.core import UserError
from afresh.core.plural import size
from afresh.data.storage.files import free_bytes
from afresh.data.storage.folders import is_result, new_folder
from afresh.engine.pages.render import BASE, environment
from afresh.services.catalogue.folder import Catalogue, bundle_fault
from afresh.services.catalogue.listing import Lineage, Listing, check_lineage


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
        "@type": ["Product", "Dataset" if x.kind == "data" else "CreativeWork"],
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


HERE = Path(__file__).parent / "templates"
INDEX = "catalogue.json"
FORMAT, VERSION = "afresh-catalogue", 1
FEEDS = ("feed.xml", "sitemap.xml", "products.xml")  # of a site whose address is known
INDEXED = {"id", "title", "kind", "licence", "summary", "maker", "quality", "lineage", "parents", "safety"}
LABELS = {"card.md": "Model card", "label.json": "Label", "cdx.json": "CycloneDX"}
KINDS = {"model": "Model", "adapter": "Adapter", "data": "Data set", "work": "Work"}


def publish(catalogue: Catalogue, out: Path, made: datetime | None = None) -> list[Listing]:
    """Write the site of all listings that are offered to a folder, in place of an earlier one, whole or not at all;
    returns these listings. The same catalogue gives the same bytes, but for the time `made` and the signature.

    Raises UserError if the folder holds something else, if a bundle is not what was added, if the lineage is a circle,
    or if the index cannot be signed.
    """
    out = Path(os.path.realpath(out))
    if out.exists() and not (out.is_dir() and (is_result(out, (INDEX,)) or not any(out.iterdir()))):
        raise UserError(
            f"{out} holds something else than a published catalogue. Choose another folder: `out`.", "output"
        )
    every = catalogue.listings()
    check_lineage(every)
    offered = [x for x in every if x.offered]
    for x in offered:
        if x.money is None and (fault := bundle_fault(catalogue, x)) is not None:
            raise UserError(fault, "bundle")
    made = (made or datetime.now(UTC)).replace(microsecond=0)
    try:
        with new_folder(out, replace=True) as folder:
            folder.mkdir(parents=True)
            for name, content in files(catalogue, offered, made):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            for x in offered:
                if x.thumbnail:
                    link_or_copy(catalogue.folder / x.thumbnail, folder / x.thumbnail)
                for name in x.labels:
                    link_or_copy(catalogue.label(x, name), folder / "labels" / x.id / name)
                if x.download:
                    link_or_copy(catalogue.bundle(x), folder / x.download)
    except OSError as error:
        raise UserError(
            f"The site cannot be written to {out}: {error.strerror or error}; {free_bytes(out):,} bytes are free. Make "
            "room or choose another folder: `out`.",
            "cannot_write",
        ) from error
    catalogue.ledger.append("published", listings=len(offered))
    return offered


def files(catalogue: Catalogue, offered: Sequence[Listing], made: datetime) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is computed."""
    from afresh.core.results import SIDECAR
    from afresh.services.provenance.sidecar import Purpose, signed_statement
    from afresh.services.provenance.signer import signer

    settings, pages = catalogue.settings, environment(HERE)
    newest = sorted(offered, key=lambda x: (x.added, x.id), reverse=True)
    shared = {
        "name": settings.name,
        "base": (settings.url or "").rstrip("/"),
        "listings": newest,
        "lineage": Lineage(offered),
        "kinds": KINDS,
        "labels": LABELS,
        **{f.__name__: f for f in (flat, format_datetime, licence_url, size)},
    }
    yield "index.html", pages.get_template("index.html").render(shared, root="", feed=settings.url is not None).encode()
    page = pages.get_template("listing.html")
    for x in newest:
        data = Markup(in_script(product(x, settings.url)))
        yield f"listings/{x.id}.html", page.render(shared, root="../", feed=False, x=x, data=data).encode()
    yield "style.css", BASE.read_bytes() + (HERE / "catalogue.css").read_bytes()
    yield "search.js", (HERE / "search.js").read_bytes()
    prices = sorted({(m.currency, m.amount) for x in newest if (m := x.money) is not None and m.amount})
    ranks = {price: rank for rank, price in enumerate(prices, 1)}
    rows = [search_row(x, ranks) for x in newest]
    yield "listings.js", f"const LISTINGS = {in_script(rows)};\n".encode()
    index = (json.dumps(index_of(catalogue, newest, made), ensure_ascii=False, indent=1) + "\n").encode()
    yield INDEX, index
    yield INDEX + SIDECAR, signed_statement(index, INDEX, Purpose.CATALOGUE, signer())
    for feed in FEEDS if settings.url is not None else ():
        yield feed, pages.get_template(feed).render(shared).encode()


def index_of(catalogue: Catalogue, listings: Sequence[Listing], made: datetime) -> dict[str, Any]:
    """The catalogue for programs: what another one, and `afresh get`, reads."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": catalogue.settings.name,
        "url": catalogue.settings.url,
        "made": made.isoformat(),
        "listings": [
            {
                **x.model_dump(mode="json", include=INDEXED),
                **x.bundle.model_dump(include={"sha256", "size"}),
                "bundle": x.download,
                "price": None if x.money is None else x.money.model_dump(),
                "page": f"listings/{x.id}.html",
                "buy": x.link,
                "labels": [f"labels/{x.id}/{name}" for name in x.labels],
            }
            for x in listings
        ],
    }


def in_script(value: Any) -> str:
    """JSON that ends no element of a page and begins none, and that every version of JavaScript reads."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def link_or_copy(source: Path, to: Path) -> None:
    """A file once more, without a copy of its bytes where the disk can do so. Both are replaced and never changed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, to)
    except OSError:
        shutil.copyfile(source, to)


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values in words; what is empty is left out."""
    return [
        (
            name.replace("_", " "),
            json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value),
        )
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]


def search_row(x: Listing, ranks: Mapping[tuple[str, int], int]) -> list[Any]:
    """What search.js knows of a listing: id, title, kind, price, whether it has a thumbnail, excerpt, maker, licence,
    the beginning of the summary, and the rank of its price within those of its currency."""
    excerpt = "" if x.thumbnail else x.excerpt[:160]
    rank = 0 if x.money is None else ranks.get((x.money.currency, x.money.amount), 0)
    return [x.id, x.title, x.kind, x.cost, int(bool(x.thumbnail)), excerpt, x.maker, x.licence, x.summary[:200], rank]
