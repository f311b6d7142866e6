"""A listing of a catalogue: which bundle it is of. A catalogue is believed only as far as its signature goes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from afresh.core import UserError
from afresh.core.results import SIDECAR
from afresh.core.safe_json import MOST_BYTES, faults, parse_json
from afresh.data.storage.files import readable, start_of
from afresh.services.bundles.download import Wanted, content_of, is_local, shown
from afresh.services.bundles.layout import BLOCK, name_fault, size_of_signature
from afresh.services.bundles.model_signing import MOST_SIZE, Kind
from afresh.services.bundles.open import UNSIGNED, Bundle, Entry, damaged, unknown_signer
from afresh.services.provenance.layers import SignedBy, Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sidecar import MOST_BYTES as MOST_SIDECAR
from afresh.services.provenance.sidecar import Purpose, purpose_of
from afresh.services.provenance.work import Sha256

FILE, FORMAT, VERSION = "catalogue.json", "afresh-catalogue", 1


class Listing(BaseModel):
    """What `get` needs of a listing. bundle: where it is, from the catalogue; None if it is for sale."""

    model_config = ConfigDict(frozen=True)
    id: str = Field(max_length=200)
    title: str = Field("", max_length=1_000)
    licence: str = Field("unknown", max_length=1_000)
    kind: Kind
    sha256: Sha256 | None = None
    size: int | None = Field(None, ge=1, le=MOST_SIZE)
    bundle: str | None = Field(None, max_length=2_000)
    buy: str | None = Field(None, max_length=2_000)


class Catalogue(BaseModel):
    model_config = ConfigDict(frozen=True)
    version: int
    name: str = Field("", max_length=1_000)
    made: AwareDatetime
    listings: list[dict[str, Any]]


@dataclass(frozen=True)
class Offer:
    """A listing, who has signed the catalogue that it is in, and when that was made."""

    listing: Listing
    signer: SignedBy
    made: datetime


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def is_catalogue(source: str) -> bool:
    """Whether an address or a path is by its name that of a catalogue, and not of a bundle."""
    path = source.partition("?")[0] if is_url(source) else source
    return path.endswith(".json") or (not is_url(source) and Path(source).is_dir())


def catalogue_of(source: str) -> str:
    """The address or the path of the catalogue that a page, a folder or the catalogue itself names."""
    if is_url(source):
        return source if is_catalogue(source) else urljoin(source, FILE)
    return str(Path(source) / FILE if Path(source).is_dir() else Path(source))


def find(catalogue: str, wanted: str | None, accepted: tuple[str, ...]) -> Offer:
    """A listing by its id. Raises UserError if the catalogue is not signed, by an unknown signer, or damaged, and if it
    has no such listing, or is asked for none: it then says which there are."""
    content, sidecar = _texts(catalogue)
    if purpose_of(content) is not Purpose.CATALOGUE:  # which the sidecar must be signed as
        raise _odd(catalogue, f"its format is not {FORMAT!r}")
    layer = next((x for x in read(content, sidecar).layers if x.name == "sidecar"), None)
    if layer is None or layer.signer is None or layer.status not in (Status.VALID, Status.UNKNOWN):
        why = "it has no signature beside it" if layer is None else layer.detail
        raise UserError(f"The catalogue {shown(catalogue)} is not used: {why}.", UNSIGNED)
    if layer.status is Status.UNKNOWN and layer.signer.fingerprint not in accepted:
        raise unknown_signer(f"The catalogue {shown(catalogue)}", layer.signer)
    try:
        found = Catalogue.model_validate(parse_json(content))
    except (ValidationError, ValueError) as error:
        raise _odd(catalogue, faults(error)) from None
    if found.version != VERSION:
        raise _odd(catalogue, f"it is of version {found.version}, and {VERSION} is read")
    one = [x for x in found.listings if x.get("id") == wanted]
    if len(one) != 1:
        what = "Name one of its listings" if wanted is None else f"It has no listing {wanted!r}, or several"
        ids = [f"{x.get('id')}: {x.get('title', '')}" for x in found.listings]
        more = [f"and {len(ids) - 20:,} more"] if len(ids) > 20 else []
        raise UserError(f"{shown(catalogue)}: {what}, as `listing=ID`:", "listing", lines=[*ids[:20], *more])
    try:
        return Offer(Listing.model_validate(one[0]), layer.signer, found.made)
    except ValidationError as error:
        raise _odd(catalogue, f"{wanted}: {faults(error)}") from None


def place_of(listing: Listing, catalogue: str) -> Wanted | Path:
    """Where the bundle of a listing is: at an address, or in the folder of a catalogue on this machine. Raises
    UserError if it is for sale, or if its place is invalid."""
    if listing.bundle is None:
        where = listing.buy if listing.buy is not None and is_url(listing.buy) else f"{shown(catalogue)}#{listing.id}"
        raise UserError(
            f"{listing.title or listing.id} is for sale at {where}. After payment you get a link, which `get` takes.",
            "to_be_bought",
            where=where,
        )
    if listing.sha256 is None or listing.size is None:
        raise _odd(catalogue, f"{listing.id}: without sha256 and size, nothing is fetched")
    if is_url(catalogue) or is_url(listing.bundle):
        url = urljoin(catalogue, listing.bundle) if is_url(catalogue) else listing.bundle
        return Wanted(url, is_url(catalogue) and is_local(catalogue), size=listing.size, sha256=listing.sha256)
    if why := name_fault(listing.bundle):
        raise _odd(catalogue, f"{listing.id}: its bundle {listing.bundle!r} is not a file beside it: {why}")
    return Path(catalogue).parent / listing.bundle


def bundle_of_file(path: Path, called: str, offer: Offer) -> Bundle | None:
    """A file that a catalogue lists as it is, as the bundle of that file alone, if its hash is the one that is listed;
    None for a bundle, which has its own signature. Raises UserError if it cannot be read."""
    listing = offer.listing
    with readable(called), path.open("rb") as stream:
        if size_of_signature(stream.read(BLOCK)) is not None:
            return None
        stream.seek(0)
        sha256, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
    name = unquote(urlsplit(listing.bundle or "").path.rpartition("/")[2])
    if why := name_fault(name):
        raise damaged(called, f"its name {name!r} is none that it can have here: {why}")
    facts: dict[str, JsonValue] = {"title": listing.title, "licence": listing.licence}
    entries = (Entry(name, size, sha256, 0),)
    return Bundle(path, called, sha256, size, name, listing.kind, offer.made, facts, entries, offer.signer, b"")


def _texts(catalogue: str) -> tuple[bytes, bytes | None]:
    """A catalogue and its signature. Raises UserError if the first cannot be had."""
    if is_url(catalogue):
        content = content_of(Wanted(catalogue, is_local(catalogue), MOST_BYTES))
        address, mark, query = catalogue.partition("?")
        try:
            beside = f"{address}{SIDECAR}{mark}{query}"
            return content, content_of(Wanted(beside, is_local(catalogue), MOST_SIDECAR))
        except UserError as error:
            if error.fields.get("status") in (404, 410):
                return content, None
            raise
    path = Path(catalogue)
    beside_it = path.with_name(path.name + SIDECAR)
    with readable(catalogue):
        signature = start_of(beside_it, MOST_SIDECAR + 1) if beside_it.is_file() else None
        return start_of(path, MOST_BYTES + 1), signature


def _odd(catalogue: str, why: str) -> UserError:
    return UserError(f"The catalogue {shown(catalogue)} is none that this version can read: {why}.", "catalogue")
