"""The folder of a catalogue: its settings, a JSON file a listing, the files that are delivered, and their previews.

catalogue/
  settings.json         name, address, maker, where bundles are delivered
  listings/ID.json      one listing
  files/ID/NAME         what is delivered of it
  previews/ID.webp      its picture
  labels/ID/            the card and the label of its run
  ledger.jsonl          every publication, release, refund and removal (ledger.py)
  buyers/               personal data of buyers, which can be forgotten (orders.py)
  receipts/             a receipt of each order, signed
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from afresh.core import UserError
from afresh.core.safe_json import faults, read_model
from afresh.data.storage.files import new_file, replace_file, write_json
from afresh.data.storage.lock import open_locked
from afresh.services.catalogue.ledger import Ledger
from afresh.services.catalogue.listing import Line, Listing, Stored, Url, check_lineage

SETTINGS = "settings.json"


class Settings(Stored):
    """`id` is random and tells catalogues apart, `url` is where the site will be, `delivery` where `afresh catalogue
    serve` is reached by buyers, and `days` how long a link to a bundle is valid."""

    format: Literal["afresh-catalogue-settings"] = "afresh-catalogue-settings"
    version: Literal[1] = 1
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    name: Line = Field(min_length=1)
    maker: Line = ""
    url: Url | None = None
    delivery: str = Field("http://127.0.0.1:8090", pattern=r"^https?://[!-~]{1,500}[^/]$")
    days: int = Field(7, ge=1, le=365)


@dataclass(frozen=True)
class Catalogue:
    """A catalogue that exists."""

    folder: Path
    settings: Settings

    @classmethod
    def init(cls, folder: Path, **settings: Any) -> Catalogue:
        """Make a catalogue in a new or empty folder. Raises UserError if there is something in it, or for settings that
        are not valid."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not empty. Give a new folder for the catalogue.", "output_exists")
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            made = Settings(**{"name": folder.resolve().name, **given}, id=secrets.token_hex(16))
        except ValidationError as error:
            raise UserError(f"A catalogue cannot have these settings: {faults(error)}.", "catalogue") from None
        write_json(folder / SETTINGS, made.model_dump(mode="json"))
        return cls(folder, made)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Raises UserError if the folder holds no catalogue."""
        if not (folder / SETTINGS).is_file():
            raise UserError(
                f"{folder} is not a catalogue: {SETTINGS} is missing. Make one with `afresh catalogue add`, or name "
                "your folder with `folder`.",
                "no_catalogue",
            )
        return cls(folder, read_model(folder / SETTINGS, Settings, "the settings of a catalogue"))

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger.jsonl")

    # ---------------------------------------------------------------------------- listings

    def path(self, id: str) -> Path:
        return self.folder / "listings" / f"{id}.json"

    def bundle(self, listing: Listing) -> Path:
        return self.folder / "files" / listing.id / listing.bundle.name

    def label(self, listing: Listing, name: str) -> Path:
        return self.folder / "labels" / listing.id / name

    def has(self, id: str) -> bool:
        return re.fullmatch(r"[a-z0-9-]{1,64}", id) is not None and self.path(id).is_file()

    def listing(self, id: str) -> Listing:
        """Raises UserError, naming similar ones, if there is no listing of this id."""
        if not self.has(id):
            from difflib import get_close_matches

            near = get_close_matches(id, [p.stem for p in (self.folder / "listings").glob("*.json")], 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"The catalogue {self.folder} has no listing {id!r}.{hint}", "no_such_listing")
        found = read_model(self.path(id), Listing, "a listing")
        if found.id != id:
            raise UserError(f"{self.path(id)} holds the listing {found.id}. Restore a copy of it.", "damaged")
        return found

    def listings(self) -> list[Listing]:
        """All listings, by their ids."""
        return [self.listing(p.stem) for p in sorted((self.folder / "listings").glob("*.json"))]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """For as long as the block lasts, no other process changes a listing."""
        with os.fdopen(open_locked(self.folder / ".lock", wait=True)):
            yield

    def write(self, listing: Listing) -> None:
        """Store a listing. Raises UserError if its lineage is a circle."""
        if listing.parents:
            check_lineage([*(x for x in self.listings() if x.id != listing.id), listing])
        replace_file(self.path(listing.id), (listing.model_dump_json(indent=1) + "\n").encode())

    def check_files(self) -> list[str]:
        """What is wrong with the listings and their files: one sentence each."""
        wrong = []
        for file in sorted((self.folder / "listings").glob("*.json")):
            try:
                found = self.listing(file.stem)
                fault = None if found.removed is not None else bundle_fault(self, found)
            except UserError as error:
                fault = str(error)
            wrong += [] if fault is None else [fault]
        return wrong


def bundle_fault(catalogue: Catalogue, listing: Listing) -> str | None:
    """What is wrong with the file of a listing: it is read whole."""
    file = catalogue.bundle(listing)
    if not file.is_file():
        return f"{file}, the file of {listing.id}, is missing. Add the listing again."
    if digest(file) != listing.bundle.sha256:
        return f"{file}, the file of {listing.id}, has changed since it was added. Add the listing again."
    return None


def digest(file: Path) -> str:
    """The SHA-256 of a file, which is read in pieces."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def copy_file(source: Path, to: Path) -> None:
    """Copy a file, whole or not at all. Raises UserError if the disk is full or not writable."""
    try:
        with source.open("rb") as stream, new_file(to) as out:
            shutil.copyfileobj(stream, out, 1 << 20)
    except OSError as error:
        raise UserError(f"{source} cannot be copied to {to}: {error.strerror or error}.", "cannot_write") from error
