"""Orders: what was paid for elsewhere, or granted, is released once, and a refund takes it back.

The ledger is the only memory. What is known of orders is made from its lines, so that a notice that comes twice, late
or after a kill finds what was done about it.

Personal data of buyers is outside the ledger. A line of the ledger has a salted hash of it, so that it can be removed
without a change to any line: the salt goes with it, and then the hash can be compared with nothing.
"""

from __future__ import annotations

import csv
import hmac
import io
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field

from afresh.core import UserError
from afresh.core.money import Money, apportioned
from afresh.core.safe_json import read_model
from afresh.data.storage.files import new_file, replace_file
from afresh.data.storage.secret import secret_for
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.ledger import Entry
from afresh.services.catalogue.listing import Lineage, Listing, Stored

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


@dataclass(frozen=True)
class Link:
    """The right to take the bundle of a listing for an order until a time, in seconds since 1970. The signature of a
    link is an HMAC-SHA256 of it with a key of this user."""

    listing: str
    order: str
    expires: int


ORDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
Result = Literal["released", "repeated", "refunded", "refused", "withheld"]


@dataclass(frozen=True)
class Notice:
    """What a payment service says. `event` is its own id of the notice, `payment` the id by which a refund names what
    was paid, `paid` the amounts that count as the whole price (with and without tax). A refund has no order, and `paid`
    has all that was paid back of it so far. `catalogue` and `listing` are empty where it does not name them."""

    kind: Literal["payment", "refund"]
    event: str
    payment: str
    paid: tuple[Money, ...]
    order: str = ""
    catalogue: str = ""
    listing: str = ""
    buyer: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Order:
    """What is known of an order. `money` is None if nothing was paid; `shares` says who is due how much of it."""

    listing: str
    entry: Entry
    money: Money | None
    shares: Mapping[str, int]
    expires: int
    withheld: bool
    refunded: int = 0

    @property
    def valid(self) -> bool:
        """Whether its bundle is delivered: it was not paid back as a whole."""
        return not self.withheld and (self.money is None or not self.money.amount or self.refunded < self.money.amount)


@dataclass(frozen=True)
class Outcome:
    """What became of a notice, in a word and a sentence, and the link to the bundle if it was released."""

    result: Result
    detail: str
    order: str = ""
    link: str = ""


class Orders:
    """The orders of a catalogue. One object may serve several threads, and several processes one catalogue. Raises
    UserError if there can be no secret to sign links by."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.known: dict[str, Order] = {}
        self.events: dict[str, str] = {}  # what was done about each event
        self.payments: dict[str, str] = {}  # their orders
        self.early: dict[tuple[str, str], int] = {}  # refunds of payments that are not known yet, by currency
        self.lineage: tuple[int, Lineage] = (-1, Lineage([]))  # as of a time of the folder of listings
        self.writing = threading.Lock()
        self.buyers = Buyers(catalogue.folder / "buyers")
        key = f"afresh catalogue links {catalogue.settings.id}".encode()
        self.key = hmac.digest(secret_for("links to bundles"), key, "sha256")
        catalogue.ledger.follow(self._follow)
        catalogue.ledger.read()

    def _follow(self, entry: Entry) -> None:
        what = entry["what"]
        if event := entry.get("event"):
            self.events[event] = what
        if what in ("released", "withheld"):
            payment, paid = entry.get("payment", ""), entry.get("amount")
            money = None if paid is None else Money(amount=paid, currency=entry["currency"])
            back = 0 if money is None else self.early.get((payment, money.currency), 0)
            shares, withheld = entry.get("shares", {}), what == "withheld"
            known = Order(entry["listing"], entry, money, shares, entry["expires"], withheld, back)
            self.known[entry["order"]] = known
            if payment:
                self.payments[payment] = entry["order"]
        elif what == "renewed":
            self.known[entry["order"]].expires = entry["expires"]
        elif what == "refunded":
            if (order := self.payments.get(entry["payment"])) is not None:
                known = self.known[order]
                known.refunded = max(known.refunded, entry["amount"])
            else:
                early = entry["payment"], entry["currency"]
                self.early[early] = max(self.early.get(early, 0), entry["amount"])

    # ---------------------------------------------------------------------------- notices

    def receive(self, notice: Notice) -> Outcome:
        """Do what a notice says, once. What is not released is said and recorded."""
        with self.catalogue.ledger.appending() as append:
            if notice.event in self.events:
                outcome = self._again(notice, f"the notice {notice.event} was {self.events[notice.event]} before")
            elif notice.kind == "refund":
                outcome = self._refund(notice, append)
            else:
                outcome = self._payment(notice, append)
        if notice.order in self.known:
            self.receipt(notice.order)
        return outcome

    def _again(self, notice: Notice, detail: str) -> Outcome:
        return Outcome("repeated", detail, notice.order, self.link(notice.order) if notice.order in self.known else "")

    def _payment(self, notice: Notice, append: Any) -> Outcome:
        known = self.known.get(notice.order)
        if known is not None and known.listing == notice.listing:
            append("repeated", event=notice.event, order=notice.order)
            return self._again(notice, f"the order {notice.order} was {known.entry['what']} before")
        why, listing = self._objection(notice, known)
        if listing is None:
            append("refused", event=notice.event, order=notice.order, payment=notice.payment, reason=why)
            return Outcome("refused", why, notice.order)
        money = listing.money
        assert money is not None
        back = self.early.get((notice.payment, money.currency), 0)
        what = "withheld" if back and back >= money.amount else "released"
        self._release(
            append, what, listing, notice.order, notice.buyer, money, event=notice.event, payment=notice.payment
        )
        if what == "withheld":
            return Outcome(
                "withheld", f"the payment {notice.payment} was paid back before its notice came", notice.order
            )
        return Outcome("released", f"{listing.id} for {money}", notice.order, self.link(notice.order))

    def _objection(self, notice: Notice, known: Order | None) -> tuple[str, Listing | None]:
        """Why nothing is released, or the listing that was paid for."""
        if ORDER.fullmatch(notice.order) is None:
            return f"{notice.order[:50]!r} is not an order number", None
        if known is not None:
            return f"the order {notice.order} is one of {known.listing}, and not of {notice.listing}", None
        if not notice.listing:
            return "it names no listing in the metadata afresh_listing", None
        if notice.catalogue not in ("", self.catalogue.settings.id):
            return "it is for another catalogue", None
        try:
            listing = self.catalogue.listing(notice.listing)
        except UserError as error:
            return str(error), None
        if listing.removed is not None:
            return f"{listing.id} was taken down, so the payment is to be paid back", None
        if listing.money is None:
            return f"{listing.id} has no price", None
        if listing.money not in notice.paid:
            given = " or ".join(dict.fromkeys(map(str, notice.paid))) or "nothing"
            return f"{given} was paid, and {listing.id} costs {listing.money}", None
        return "", listing

    def _refund(self, notice: Notice, append: Any) -> Outcome:
        order = self.payments.get(notice.payment, "")
        money = self.known[order].money if order else None
        back = notice.paid[0]
        if money is not None and money.currency != back.currency:
            why = f"{back} was paid back of a payment in {money.currency}"
            append("refused", event=notice.event, order=order, payment=notice.payment, reason=why)
            return Outcome("refused", why, order)
        append("refunded", event=notice.event, order=order, payment=notice.payment, **back.model_dump())
        if not order:
            return Outcome("refunded", f"{back} of the payment {notice.payment}, whose own notice has not come yet")
        whole = "" if self.known[order].valid else "; its link is no longer valid"
        return Outcome("refunded", f"{back} of the order {order}{whole}", order)

    # ---------------------------------------------------------------------------- releases

    def grant(self, id: str, to: str, order: str = "", paid: Money | None = None) -> Outcome:
        """Release a listing to a person, for nothing or for what was paid elsewhere. An order that exists gets a new
        link if its own has expired. Raises UserError for an order of another listing, and one that was paid back."""
        order = order or f"grant-{secrets.token_hex(12)}"
        if ORDER.fullmatch(order) is None:
            raise UserError(
                f"{order!r} is not an order number: up to 200 letters, digits, and the characters _ . and -.", "order"
            )
        listing = self.catalogue.listing(id)
        if listing.removed is not None:
            raise UserError(f"{id} was taken down: {listing.removed}. Add it again to deliver it.", "removed")
        with self.catalogue.ledger.appending() as append:
            known = self.known.get(order)
            if known is not None and (known.listing != id or not known.valid):
                why = f"is one of {known.listing}" if known.listing != id else "was paid back"
                raise UserError(f"The order {order} {why}. Give another number, `order`, or none.", "order")
            if known is None:
                self._release(append, "released", listing, order, {"name": to}, paid)
                outcome = Outcome("released", f"{id} to {to}", order, self.link(order))
            else:
                if known.expires <= time.time():
                    append("renewed", order=order, expires=self._expiry())
                outcome = Outcome("repeated", f"the order {order} was released before", order, self.link(order))
        self.receipt(order)
        return outcome

    def _expiry(self) -> int:
        return int(time.time()) + self.catalogue.settings.days * 86_400

    def _release(
        self, append: Any, what: str, x: Listing, order: str, to: Mapping[str, str], paid: Money | None, **more: str
    ) -> None:
        hashed = self.buyers.keep(order, to)
        shares = {} if paid is None else self._lineage_of(x).shares(x, paid.amount)
        money = {} if paid is None else paid.model_dump()
        facts = {"listing": x.id, "title": x.title, "licence": x.licence}
        facts |= x.bundle.model_dump(include={"sha256", "size"})
        append(what, **more, order=order, **facts, **money, shares=shares, buyer=hashed, expires=self._expiry())

    def _lineage_of(self, x: Listing) -> Lineage:
        """The lineage that a listing is in, which is read again only if a listing was written since."""
        if not x.parents:
            return Lineage([x])
        written = (self.catalogue.folder / "listings").stat().st_mtime_ns
        if self.lineage[0] != written:
            self.lineage = written, Lineage(self.catalogue.listings())
        return self.lineage[1]

    def link(self, order: str) -> str:
        """The link of an order; empty if it is not delivered."""
        known = self.known[order]
        if not known.valid:
            return ""
        signature = self._signature(Link(known.listing, order, known.expires))
        query = urlencode({"order": order, "expires": known.expires, "signature": signature})
        return f"{self.catalogue.settings.delivery}/bundles/{known.listing}?{query}"

    def _signature(self, link: Link) -> str:
        parts = (link.listing, link.order, str(link.expires))
        return hmac.new(self.key, "\0".join(parts).encode(), sha256).hexdigest()

    def receipt(self, order: str) -> Path:
        """The receipt of an order, with its signature beside it: the same at any time, and written unless both are
        there. It names no person, so nothing in it has to be forgotten."""
        from afresh.core.results import SIDECAR
        from afresh.services.provenance.sidecar import Purpose, signed_statement
        from afresh.services.provenance.signer import signer

        entry, money, settings = self.known[order].entry, self.known[order].money, self.catalogue.settings
        file = self.catalogue.folder / "receipts" / f"{order}.json"
        beside = file.with_name(file.name + SIDECAR)
        facts = {
            "format": "afresh-receipt",
            "version": 1,
            "seller": settings.maker or settings.name,
            "catalogue": settings.name,
            "order": order,
            "at": entry["at"],
            "state": entry["what"],
            **{name: entry[name] for name in ("listing", "title", "sha256", "size", "licence")},
            "paid": None if money is None else {**money.model_dump(), "written": str(money)},
            "ledger_line": entry["n"],
        }
        with self.writing:  # threads of a process write aside under one name
            if not (file.is_file() and beside.is_file()):
                content = (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()
                replace_file(beside, signed_statement(content, file.name, Purpose.RECEIPT, signer()))
                replace_file(file, content)
        return file

    def delivered(self, link: Link, signature: str) -> Path:
        """The file of a bundle for the holder of a link. Raises UserError (forged, expired, no_such_order, removed) if
        it has none."""
        if not hmac.compare_digest(self._signature(link).encode(), signature.encode()):
            raise UserError(
                "This link was not made by this catalogue, or was changed. Use the one you were sent.", "forged"
            )
        if time.time() >= link.expires:
            raise UserError(
                "This link has expired. Ask the seller for a new one, with the number of the order.", "expired"
            )
        self.catalogue.ledger.read()
        known = self.known.get(link.order)
        if known is None or known.listing != link.listing:
            raise UserError("No such order.", "no_such_order")
        if not known.valid:
            raise UserError("This order was paid back, so it is not delivered.", "removed")
        listing = self.catalogue.listing(link.listing)
        file = self.catalogue.bundle(listing)
        if listing.removed is not None or not file.is_file():
            raise UserError("This listing was taken down. Ask the seller.", "removed")
        return file

    # ---------------------------------------------------------------------------- forgetting

    def forget(self, person: str) -> Sequence[str]:
        """Remove what is known of a buyer, by a whole field as the e-mail address; returns the orders. The lines of the
        ledger stay as they are. Raises UserError if there is no such buyer."""
        with self.catalogue.ledger.appending() as append:
            found = sorted(self.buyers.named(person), key=lambda b: b.order)
            if not found:
                raise UserError(
                    f"No buyer has the name or the e-mail address {person!r}. Give it whole, as it stands in "
                    f"{self.buyers.folder}.",
                    "nothing_to_forget",
                )
            append("forgotten", orders=[b.order for b in found], buyers=[b.hash for b in found])
            for buyer in found:
                self.buyers.remove(buyer.order)
        return [b.order for b in found]


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
