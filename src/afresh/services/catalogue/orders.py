"""Orders: what was paid for elsewhere, or granted, is released once, and a refund takes it back.

The ledger is the only memory. What is known of orders is made from its lines, so that a notice that comes twice, late
or after a kill finds what was done about it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from afresh.core import UserError
from afresh.core.money import Money
from afresh.services.catalogue.buyers import Buyers
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.ledger import Entry
from afresh.services.catalogue.lineage import Lineage
from afresh.services.catalogue.links import Link, Links
from afresh.services.catalogue.listing import Listing
from afresh.services.catalogue.receipts import paid_of, write_receipt

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
    """The orders of a catalogue. One object may serve several threads, and several processes one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.known: dict[str, Order] = {}
        self.events: dict[str, str] = {}  # what was done about each event
        self.payments: dict[str, str] = {}  # their orders
        self.early: dict[tuple[str, str], int] = {}  # refunds of payments that are not known yet, by currency
        self.lineage: tuple[int, Lineage] = (-1, Lineage([]))  # as of a time of the folder of listings
        self.writing = threading.Lock()
        self.buyers = Buyers(catalogue.folder / "buyers")
        self.links = Links(catalogue.settings.id, catalogue.settings.delivery)
        catalogue.ledger.follow(self._follow)
        catalogue.ledger.read()

    def _follow(self, entry: Entry) -> None:
        what = entry["what"]
        if event := entry.get("event"):
            self.events[event] = what
        if what in ("released", "withheld"):
            payment, money = entry.get("payment", ""), paid_of(entry)
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
            return f"{notice.order[:50]!r} is no number of an order", None
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
                f"{order!r} is no number of an order: up to 200 letters, digits, and the characters _ . and -.", "order"
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
        """The lineage that a listing is in, which is read anew only if a listing was written since."""
        if not x.parents:
            return Lineage([x])
        written = (self.catalogue.folder / "listings").stat().st_mtime_ns
        if self.lineage[0] != written:
            self.lineage = written, Lineage(self.catalogue.listings())
        return self.lineage[1]

    def link(self, order: str) -> str:
        """The link of an order; empty if it is not delivered."""
        known = self.known[order]
        return self.links.url(Link(known.listing, order, known.expires)) if known.valid else ""

    def receipt(self, order: str) -> Path:
        """The receipt of an order, which is written if a process ended before it was."""
        with self.writing:  # threads of a process write aside under one name
            return write_receipt(self.catalogue, self.known[order].entry)

    def delivered(self, link: Link, signature: str) -> Path:
        """The file of a bundle for whoever shows a link. Raises UserError (forged, expired, no_such_order, removed) if
        there is none for it."""
        self.links.check(link, signature, time.time())
        self.catalogue.ledger.read()
        known = self.known.get(link.order)
        if known is None or known.listing != link.listing:
            raise UserError("There is no such order.", "no_such_order")
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
