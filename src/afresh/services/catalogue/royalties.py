"""Royalties: who is due how much of what was paid, summed from the ledger, as a table for whoever pays them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from afresh.core.money import Money, apportioned
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.lineage import Lineage
from afresh.services.catalogue.orders import Orders

COLUMNS = ("to", "maker", "currency", "amount_minor", "amount", "orders")


def royalties(catalogue: Catalogue, since: date | None = None, until: date | None = None) -> Sequence[dict[str, Any]]:
    """What is due to each listing, or parent outside the catalogue, in each currency: of the orders from the day
    `since` to the day `until`, both in UTC, less what was paid back of them. The sums are those of what was paid,
    exactly."""
    owed: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for order in Orders(catalogue).known.values():
        day = datetime.fromisoformat(order.entry["at"]).date()
        if order.money is None or not order.shares or (since and day < since) or (until and day > until):
            continue
        to, amounts = list(order.shares), list(order.shares.values())
        back = apportioned(min(order.refunded, order.money.amount), amounts)
        for of, amount, less in zip(to, amounts, back, strict=True):
            owed[of, order.money.currency] += amount - less
            counts[of, order.money.currency] += 1
    lineage = Lineage(catalogue.listings())
    rows = []
    for of, currency in sorted(owed):
        amount, known = owed[of, currency], lineage.named(of)
        written = Money(amount=amount, currency=currency).decimal
        values = (of, known.maker if known else "", currency, amount, written, counts[of, currency])
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV (RFC 4180). A name that a spreadsheet would take for a formula gets an apostrophe before it."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {k: f"'{v}" if isinstance(v, str) and v[:1] in tuple("=+-@\t\r") else v for k, v in row.items()}
        )
    return stream.getvalue()
