"""The published site: what it has, that the same catalogue gives the same, and that nothing written by others acts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.services.catalogue.add import add, set_price, take_down
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.listing import Quality
from afresh.services.catalogue.site import publish
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read

GOOGLE = "http://base.google.com/ns/1.0"
SITEMAP = "http://www.sitemaps.org/schemas/sitemap/0.9"
WHEN = datetime(2026, 12, 2, tzinfo=UTC)
BAD = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u2028\" ' & {{ 7*7 }}".replace("\u2028", "")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts.append(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def ld(page: Path) -> dict[str, Any]:
    (script,) = Elements(page.read_text()).scripts
    return dict(json.loads(script))


def test_a_site_has_what_was_promised(catalogue: Catalogue, tmp_path: Path) -> None:
    out = tmp_path / "site"
    publish(catalogue, out, WHEN)
    assert set(contents(out)) == {
        "bundles/picture/picture.png",
        "catalogue.json",
        "catalogue.json.provenance.json",
        "feed.xml",
        "index.html",
        "listings.js",
        "listings/picture.html",
        "listings/poem.html",
        "previews/picture.webp",
        "products.xml",
        "search.js",
        "sitemap.xml",
        "style.css",
    }
    assert read(out / "catalogue.json").status is Status.VALID
    index = json.loads((out / "catalogue.json").read_bytes())
    assert (index["format"], index["version"], index["made"]) == ("afresh-catalogue", 1, "2026-12-02T00:00:00+00:00")
    by_id = {x["id"]: x for x in index["listings"]}
    assert by_id["poem"]["bundle"] is None and by_id["poem"]["price"] == {"amount": 1250, "currency": "EUR"}
    assert by_id["picture"]["bundle"] == "bundles/picture/picture.png" and by_id["picture"]["price"] is None
    assert by_id["picture"]["sha256"] == catalogue.listing("picture").bundle.sha256
    assert b"keeps what the day" not in b"".join(c for n, c in contents(out).items() if n.startswith("bundles"))


def test_a_page_leads_with_picture_and_verdict_and_a_licence_of_ones_own_is_its_terms(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    own = "You may print it for yourself, but not sell it."
    add(catalogue, tmp_path / "picture.png", kind="work", licence=own, title="Sea", price="free")
    sea = catalogue.listing("sea")
    assert (sea.licence, sea.terms) == ("LicenseRef-own", own)
    with pytest.raises(UserError, match="is not an SPDX licence"):
        add(catalogue, tmp_path / "picture.png", kind="work", licence="CC-BY-9", title="Sea")
    quality = Quality(verdict="Hardly blurred.", scores=({"name": "fd", "value": 1.5},), card={"id": "ab"})
    catalogue.write(sea.model_copy(update={"quality": quality}))
    publish(catalogue, tmp_path / "site")
    page = (tmp_path / "site" / "listings" / "sea.html").read_text().partition("<main>")[2]
    places = [page.index(part) for part in ("<img", "Hardly blurred.", own, "<summary>Scores")]
    assert places == sorted(places)


def test_the_same_catalogue_gives_the_same_bytes(catalogue: Catalogue, tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(catalogue, tmp_path / name, WHEN)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    signature = "catalogue.json.provenance.json"  # a signature on a curve has a random part
    assert a.pop(signature) != b.pop(signature) and a == b


def test_an_earlier_site_is_replaced_whole_and_nothing_else_is(catalogue: Catalogue, tmp_path: Path) -> None:
    out = tmp_path / "site"
    publish(catalogue, out, WHEN)
    take_down(catalogue, "picture", "A claim")
    publish(catalogue, out, WHEN)
    assert not [n for n in contents(out) if "picture" in n] and "listings/poem.html" in contents(out)
    before = contents(out)
    catalogue.bundle(catalogue.listing("poem")).write_text("another")
    set_price(catalogue, "poem", "free")
    with pytest.raises(UserError, match="has changed since it was added"):
        publish(catalogue, out, WHEN)
    assert contents(out) == before and [p.name for p in tmp_path.glob(".*")] == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        publish(catalogue, other, WHEN)
    assert contents(other) == {"letter.txt": b"mine"}


def test_what_others_wrote_does_not_act(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text(BAD * 40)
    facts = {"summary": BAD, "terms": BAD, "maker": BAD, "safety": BAD}
    add(catalogue, tmp_path / "bad.txt", kind="work", licence="MIT", id="bad", title=BAD, price="1 EUR", **facts)
    out = tmp_path / "site"
    publish(catalogue, out, WHEN)
    for page in ("index.html", "listings/bad.html"):
        found = Elements((out / page).read_text()).found
        assert {tag for tag, _ in found if tag in ("script", "img", "iframe")} <= {"script", "img"}
        assert all("onerror" not in attributes for _, attributes in found)
        scripts = [a for tag, a in found if tag == "script"]
        assert all(a.get("src") or a.get("type") == "application/ld+json" for a in scripts)
        assert "{{ 7*7 }}" in (out / page).read_text()
    assert ld(out / "listings" / "bad.html")["name"] == BAD
    assert "<" not in (out / "listings.js").read_text()
    feed = ET.fromstring((out / "feed.xml").read_bytes())
    assert BAD in [e.text for e in feed.iter("title")]


def test_every_link_of_a_page_leads_somewhere_and_nothing_is_loaded_from_elsewhere(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    add(catalogue, tmp_path / "poem.txt", kind="data", licence="MIT", title="Child", price="1 EUR", parents=["poem=5"])
    out = tmp_path / "site"
    publish(catalogue, out, WHEN)
    for page in out.rglob("*.html"):
        for tag, attributes in Elements(page.read_text()).found:
            target = attributes.get("src") or attributes.get("href") or ""
            if target and not target.startswith("https://"):
                assert (page.parent / target.partition("#")[0]).resolve().is_file(), (page, target)
            assert not (tag in ("script", "img", "link", "audio") and "://" in target), (page, target)


def test_a_listing_is_a_product_of_schema_org(catalogue: Catalogue, tmp_path: Path) -> None:
    publish(catalogue, tmp_path / "site", WHEN)
    poem, picture = (ld(tmp_path / "site" / "listings" / f"{n}.html") for n in ("poem", "picture"))
    assert poem["@context"] == "https://schema.org" and "Product" in poem["@type"]
    assert poem["offers"] == {
        "@type": "Offer",
        "price": "12.50",
        "priceCurrency": "EUR",
        "availability": "https://schema.org/InStock",
        "url": "https://buy.example.org/1",
    }
    assert poem["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
    assert picture["offers"]["price"] == "0" and picture["isAccessibleForFree"] is True
    assert picture["image"] == "https://example.org/shop/previews/picture.webp"


def test_the_feeds_are_what_their_formats_ask_for(catalogue: Catalogue, tmp_path: Path) -> None:
    out = tmp_path / "site"
    publish(catalogue, out, WHEN)
    rss = ET.fromstring((out / "feed.xml").read_bytes())
    assert rss.tag == "rss" and rss.get("version") == "2.0"
    channel = rss.find("channel")
    assert channel is not None and {"title", "link", "description"} <= {e.tag for e in channel}
    for item in channel.iter("item"):
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} \+0000", item.findtext("pubDate") or "")
        assert (item.findtext("guid") or "").startswith("https://example.org/shop/listings/")
    places = [e.text for e in ET.fromstring((out / "sitemap.xml").read_bytes()).iter(f"{{{SITEMAP}}}loc")]
    assert sorted(map(str, places)) == [
        "https://example.org/shop/",
        "https://example.org/shop/listings/picture.html",
        "https://example.org/shop/listings/poem.html",
    ]
    (item,) = ET.fromstring((out / "products.xml").read_bytes()).iter("item")
    facts = {e.tag.removeprefix(f"{{{GOOGLE}}}"): e.text for e in item}
    assert facts["price"] == "12.50 EUR" and facts["availability"] == "in_stock" and facts["id"] == "poem"


def test_without_an_address_there_are_no_feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    publish(Catalogue.init(tmp_path / "empty"), tmp_path / "site", WHEN)
    assert set(contents(tmp_path / "site")) >= {"index.html", "catalogue.json"}
    assert not [n for n in contents(tmp_path / "site") if n.endswith(".xml")]


@pytest.mark.parametrize("url", ["http://example.org", "ftp://example.org", "https://a:b@example.org", "example.org"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="https://"):
        Catalogue.init(tmp_path / "shop", url=url)
    assert not (tmp_path / "shop").exists()
