"""Personal data of buyers, outside the ledger. A line of the ledger has a salted hash of it, so that it can be removed
without a change to any line: the salt goes with it, and then the hash can be compared with nothing."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from pydantic import Field

from afresh.core.safe_json import read_model
from afresh.data.storage.files import new_file
from afresh.services.catalogue.listing import Stored

MOST = 1_000  # characters of a field


class Buyer(Stored):
    """Who an order is for: fields by name, such as email and name, and the salt of their hash."""

    order: str
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    who: dict[str, str]

    @property
    def hash(self) -> str:
        return sha256(json.dumps([self.salt, self.order, self.who], sort_keys=True).encode()).hexdigest()


class Buyers:
    """The folder with a file an order, which its owner alone may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, order: str) -> Path:
        return self.folder / f"{sha256(order.encode()).hexdigest()[:32]}.json"

    def keep(self, order: str, who: Mapping[str, str]) -> str:
        """Store who an order is for; returns the hash for the ledger. An order that was stored before a process ended
        keeps its salt if it is for the same person."""
        given = {key: " ".join(str(value).split())[:MOST] for key, value in who.items() if value}
        old = self.of(order)
        if old is not None and old.who == given:
            return old.hash
        new = Buyer(order=order, salt=secrets.token_hex(16), who=given)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new_file(self._file(order), 0o600) as stream:
            stream.write(new.model_dump_json().encode())
        return new.hash

    def of(self, order: str) -> Buyer | None:
        """Who an order is for; None if that is not known, or was forgotten."""
        file = self._file(order)
        return read_model(file, Buyer, "a buyer") if file.is_file() else None

    def named(self, person: str) -> list[Buyer]:
        """The orders of a person by a whole field, as an e-mail address, whatever its case."""
        wanted = re.sub(r"\s+", " ", person.strip()).casefold()
        every = [read_model(file, Buyer, "a buyer") for file in sorted(self.folder.glob("*.json"))]
        return [b for b in every if wanted and wanted in (value.casefold() for value in b.who.values())]

    def remove(self, order: str) -> None:
        self._file(order).unlink(missing_ok=True)
