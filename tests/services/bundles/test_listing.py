"""What a catalogue lists is taken by its hash, after its own signature was checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import afresh
from afresh.core import UserError
from afresh.services.bundles import download
from afresh.services.bundles.pack import pack_folder
from afresh.services.provenance.sidecar import Purpose, signed_statement
from afresh.services.provenance.signer import Signer, signer
from tests.services.bundles.conftest import signed_by
from tests.services.bundles.server import Site, serving
from tests.services.provenance.conftest import stranger


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFRESH_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving() as made:
        yield made


@pytest.fixture
def listing(thing: Path, site: Site) -> dict[str, Any]:
    """The listing of a bundle that the site has."""
    digest = pack_folder(thing, Path("thing.bundle"), "data", {"licence": "CC0-1.0"})
    site.files["/shop/b/thing.bundle"] = Path("thing.bundle").read_bytes()
    size = Path("thing.bundle").stat().st_size
    return {
        "id": "thing",
        "title": "A thing",
        "kind": "data",
        "sha256": digest,
        "size": size,
        "bundle": "b/thing.bundle",
        "price": None,
        "licence": "CC0-1.0",
    }


def publish(site: Site, *listings: dict[str, Any], by: Signer | None = None, **changed: Any) -> bytes:
    whole = {
        "format": "afresh-catalogue",
        "version": 1,
        "name": "A shop",
        "url": site.url,
        "made": "2026-12-01T00:00:00Z",
        "listings": list(listings),
        **changed,
    }
    content = json.dumps(whole).encode()
    site.files["/shop/catalogue.json"] = content
    made = signed_statement(content, "catalogue.json", Purpose.CATALOGUE, by or signer())
    site.files["/shop/catalogue.json.provenance.json"] = made
    return content


def refused(source: str, **options: Any) -> UserError:
    with pytest.raises(UserError) as error:
        afresh.get(source, out="out", **options)
    assert not Path("out").exists() and not list(Path("cache/fetched").glob("*bundle*"))
    return error.value


@pytest.mark.parametrize("source", ["/shop/catalogue.json#thing", "/shop/#thing", "/shop/index.html#thing"])
def test_a_listing_is_taken_from_its_page_or_the_catalogue(site: Site, listing: dict[str, Any], source: str) -> None:
    publish(site, {**listing, "id": "other"}, listing)
    got = afresh.get(site.url + source, out="out")
    assert (got.folder / "a.txt").read_bytes() == b"hello" and got.bundle.kind == "data"
    assert [path for path, _ in site.asked][:2] == ["/shop/catalogue.json", "/shop/catalogue.json.provenance.json"]


def test_a_catalogue_in_a_folder_is_read_likewise(site: Site, listing: dict[str, Any], thing: Path) -> None:
    content = publish(site, {**listing, "bundle": "thing.bundle"})
    Path("catalogue.json").write_bytes(content)
    Path("catalogue.json.provenance.json").write_bytes(site.files["/shop/catalogue.json.provenance.json"])
    for number, source in enumerate(("catalogue.json#thing", ".#thing", "catalogue.json")):
        afresh.get(source, out=f"out{number}", listing="thing" if "#" not in source else None)
    publish(site, {**listing, "bundle": "../thing.bundle"})
    Path("catalogue.json").write_bytes(site.files["/shop/catalogue.json"])
    Path("catalogue.json.provenance.json").write_bytes(site.files["/shop/catalogue.json.provenance.json"])
    assert "is not a file beside it" in str(refused("catalogue.json#thing"))


def test_an_expiring_link_is_an_address_like_others(site: Site, listing: dict[str, Any]) -> None:
    link = f"{site.url}/shop/b/thing.bundle?expires=1&signature=secret"
    assert afresh.get(link, out="out").folder.is_dir()
    site.statuses["/shop/b/thing.bundle"] = [410]
    with pytest.raises(UserError, match="may have expired: ask for a new one") as error:
        afresh.get(link, out="out2")
    assert "secret" not in str(error.value)


def test_what_a_catalogue_says_is_checked(site: Site, listing: dict[str, Any], thing: Path) -> None:
    source = f"{site.url}/shop/catalogue.json#thing"
    for changed, why in (
        ({"sha256": "0" * 64}, "SHA-256 is not the one that its catalogue states"),
        ({"size": 10}, "has not the 10 bytes"),
        ({"size": listing["size"] + 1}, "has not the"),
        ({"kind": "work"}, "is not the work that its catalogue lists"),
        ({"size": None}, "without sha256 and size"),
        ({"bundle": "missing.bundle"}, "the server answered 404"),
        ({"kind": "toy"}, "none that this version can read"),
        ({"size": -1}, "none that this version can read"),
        ({"bundle": "https://10.0.0.1/x.bundle"}, "no public address"),
        ({"bundle": "file:///etc/passwd"}, "cannot be fetched"),
    ):
        publish(site, {**listing, **changed})
        assert why in str(refused(source)), changed
    publish(site, listing)
    (thing / "a.txt").write_bytes(b"other")
    pack_folder(thing, Path("thing.bundle"), "data", {})
    site.files["/shop/b/thing.bundle"] = Path("thing.bundle").read_bytes()
    refused(source)  # another bundle of the same maker


def test_a_catalogue_without_a_good_signature_is_not_used(site: Site, listing: dict[str, Any]) -> None:
    source = f"{site.url}/shop/catalogue.json#thing"
    content = publish(site, listing)
    site.files["/shop/catalogue.json"] = content.replace(b"A shop", b"B shop")
    assert "is not used: changed since" in str(refused(source))
    site.files["/shop/catalogue.json"] = content
    site.files["/shop/catalogue.json.provenance.json"] = b"{}"
    assert "is not used: the sidecar is damaged" in str(refused(source))
    del site.files["/shop/catalogue.json.provenance.json"]
    assert "it has no signature beside it" in str(refused(source))
    for odd in ({"format": "x"}, {"version": 2}, {"listings": {}}):
        publish(site, listing, **odd)
        assert "none that this version can read" in str(refused(source))


def test_the_signers_of_the_catalogue_and_of_the_bundle_are_both_asked_for(
    site: Site, listing: dict[str, Any], thing: Path
) -> None:
    shop, maker = stranger(), stranger()
    files = [(p.relative_to(thing).as_posix(), p.read_bytes()) for p in sorted(thing.rglob("*")) if p.is_file()]
    made = signed_by(maker, Path("m.bundle"), files, kind="data")
    site.files["/shop/b/thing.bundle"] = made.read_bytes()
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    publish(site, {**listing, "sha256": digest, "size": made.stat().st_size}, by=shop)
    source = f"{site.url}/shop/#thing"
    first = refused(source)
    assert first.code == "unknown_signer" and "The catalogue" in str(first)
    second = refused(source, accept_signer=first.fields["fingerprint"])
    assert second.fields["fingerprint"] != first.fields["fingerprint"]
    both = [error.fields["fingerprint"] for error in (first, second)]
    assert afresh.get(source, out="out", accept_signer=both).folder.is_dir()
    bundles = [path for path, part in site.asked if path.endswith(".bundle") and not part]
    assert len(bundles) == 1, "what was fetched before is used"


def test_what_is_to_be_bought_and_what_there_is_are_said(site: Site, listing: dict[str, Any]) -> None:
    bought = {**listing, "id": "lamp", "title": "A lamp", "bundle": None, "buy": "https://pay.example/lamp"}
    publish(site, listing, bought, {**bought, "id": "chair", "buy": "javascript:alert(1)"})
    error = refused(f"{site.url}/shop/#lamp")
    assert error.code == "to_be_bought" and error.fields["where"] == "https://pay.example/lamp"
    assert refused(f"{site.url}/shop/#chair").fields["where"] == f"{site.url}/shop/catalogue.json#chair"
    for source in ("/shop/catalogue.json", "/shop/#table"):
        assert "thing: A thing" in str(refused(site.url + source))
