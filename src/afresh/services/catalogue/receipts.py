"""Receipts: one file an order, and its signature beside it. A receipt names nobody, so nothing in it has to be
forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from afresh.core.money import Money
from afresh.data.storage.files import replace_file
from afresh.services.catalogue.ledger import Entry

if TYPE_CHECKING:
    from afresh.services.catalogue.folder import Catalogue


def paid_of(entry: Entry) -> Money | None:
    """What was paid, as a line of the ledger says."""
    return None if entry.get("amount") is None else Money(amount=entry["amount"], currency=entry["currency"])


def receipt_of(catalogue: Catalogue, entry: Entry) -> bytes:
    """The receipt that a line of the ledger stands for: the same at any time."""
    money = paid_of(entry)
    facts = {
        "format": "afresh-receipt",
        "version": 1,
        "seller": catalogue.settings.maker or catalogue.settings.name,
        "catalogue": catalogue.settings.name,
        "order": entry["order"],
        "at": entry["at"],
        "state": entry["what"],
        **{name: entry[name] for name in ("listing", "title", "sha256", "size", "licence")},
        "paid": None if money is None else {**money.model_dump(), "written": str(money)},
        "ledger_line": entry["n"],
    }
    return (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()


def write_receipt(catalogue: Catalogue, entry: Entry) -> Path:
    """Write the receipt and its sidecar, unless both are there."""
    from afresh.services.provenance.formats import SIDECAR
    from afresh.services.provenance.sidecar import Purpose, signed_statement
    from afresh.services.provenance.signer import signer

    file = catalogue.folder / "receipts" / f"{entry['order']}.json"
    beside = file.with_name(file.name + SIDECAR)
    if file.is_file() and beside.is_file():
        return file
    content = receipt_of(catalogue, entry)
    replace_file(beside, signed_statement(content, file.name, Purpose.RECEIPT, signer()))
    replace_file(file, content)
    return file
