"""Data at an address of the web or of a store: its files are fetched one after the other while they are learnt.

What is there is listed once, with sizes and tags, in a file that stands for the data; each file is compared with it
when it is fetched. At most two are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from afresh.core import UserError, events
from afresh.data.files import DataFile
from afresh.data.imported import data_folder
from afresh.data.storage.files import replace_file
from afresh.data.storage.lock import open_locked
from afresh.data.storage.object_store import NOT_STORED, ObjectStore, StoredFile, address_of, files_at, is_address

FOLDER, LISTING = "shards", "listing.json"
TRIES, WAIT = 3, 2.0  # of fetching a file, and seconds before the second


class Shards:
    """The files of a listing."""

    def __init__(self, listing: Path) -> None:
        self.folder = listing.parent
        self.files = [StoredFile(**file) for file in json.loads(listing.read_bytes())]
        self.last: Path | None = None  # that was fetched

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.files[0].address)

    @contextmanager
    def fetched(self, number: int) -> Iterator[DataFile]:
        """A file, fetched if it is not there, which other processes wait for meanwhile. Raises UserError if the store
        does not give it, or gives another one than it had."""
        handle = open_locked(self.folder / "lock", wait=True)
        try:
            file = self.files[number]
            path = self.folder / f"{number:06d}-{PurePosixPath(file.name).name}"
            if not path.is_file():
                self._fetch(file, path)
            self.last = path
            yield DataFile(path, file.name, file.size)
        finally:
            os.close(handle)

    def _fetch(self, file: StoredFile, path: Path) -> None:
        """Fetch a file atomically: the whole stands under its name, or nothing."""
        for other in self.folder.glob("[0-9]*-*"):
            if other != self.last:
                other.unlink()
        aside = self.folder / "fetched"
        for attempt in range(TRIES):
            try:
                self._store.fetch(file, aside)
                break
            except UserError as error:
                if error.code != NOT_STORED or attempt == TRIES - 1:
                    raise
                events.detail(f"{error} It is tried again.", error.code)
                time.sleep(WAIT * 2**attempt)
        aside.replace(path)


def of_address(path: Path, modality: str | None) -> Path | None:
    """A file that lists what is at an address; None for a path. Raises UserError if nothing is there, or if the store
    does not answer."""
    if path.exists() or not is_address(path):
        return None
    address = address_of(path)
    if modality not in (None, "text"):
        raise UserError(
            f"{address}: of addresses only texts are learnt so far. Fetch the files into a folder, and give that.",
            "not_text",
        )
    content = json.dumps([asdict(file) for file in files_at(address) if file.size]).encode()
    listing = data_folder() / hashlib.sha256(content).hexdigest()[:24] / FOLDER / LISTING
    replace_file(listing, content, "Make room there, or set AFRESH_DATA_FOLDER to another folder")
    return listing


def is_listing(path: Path) -> bool:
    """Whether a file lists what is at an address."""
    return path.name == LISTING and path.parent.name == FOLDER


SOURCE = of_address
