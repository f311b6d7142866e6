"""Stripe: payment links, and its notices of payment (https://docs.stripe.com/webhooks), by its own library."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasPath, BaseModel, Field, StringConstraints, ValidationError

from afresh.core import UserError
from afresh.core.money import CURRENCIES, MOST, Money
from afresh.core.safe_json import faults, parse_json
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.listing import Line, Listing
from afresh.services.catalogue.orders import MOST as MOST_CHARACTERS
from afresh.services.catalogue.orders import Notice

TOLERANCE = 300  # seconds between the signing of a notice and its arrival
LISTING, CATALOGUE = "afresh_listing", "afresh_catalogue"  # metadata of a payment link, which its sessions inherit
# What Stripe writes with other decimals than ISO 4217 has (https://docs.stripe.com/currencies#special-cases).
DECIMALS = {"ISK": 2, "UGX": 2, "MGA": 0}
PAID = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
REFUNDED = "charge.refunded"


def require_stripe(what: str) -> None:
    """Raises UserError if the library of Stripe is not installed."""
    if find_spec("stripe") is None:
        raise UserError(
            f"{what} needs the extra payments, and stripe is not installed: pip install 'afresh[payments]'.",
            "extra_missing",
            extra="payments",
        )


def amount_at_stripe(money: Money) -> int:
    """The amount in the unit that Stripe has for its currency. Raises UserError for one that it cannot have."""
    shift = DECIMALS.get(money.currency, CURRENCIES[money.currency]) - CURRENCIES[money.currency]
    amount, rest = (money.amount * 10**shift, 0) if shift >= 0 else divmod(money.amount, 10**-shift)
    if rest or (CURRENCIES[money.currency] == 3 and amount % 10):
        raise UserError(f"Stripe has no unit as small as {money} needs. Round the price.", "price")
    return amount


def money_at_stripe(amount: int, code: str) -> Money:
    """The inverse. Raises ValueError for an amount or a currency that there is not."""
    currency = code.upper()
    if currency not in CURRENCIES:
        raise ValueError(f"{code!r} is not a currency of ISO 4217")
    shift = DECIMALS.get(currency, CURRENCIES[currency]) - CURRENCIES[currency]
    whole, rest = divmod(amount, 10**shift) if shift >= 0 else (amount * 10**-shift, 0)
    if rest:
        raise ValueError(f"{amount} is not a whole amount of {currency}")
    return Money(amount=whole, currency=currency)


def _encodable(text: str) -> str:
    """Raises ValueError for half of a surrogate pair, which JSON may have and no file."""
    text.encode()
    return text


Amount = Annotated[int, Field(ge=0, le=MOST)]
Currency = Annotated[str, Field(pattern="^[a-z]{3}$")]
Person = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS), AfterValidator(_encodable)]


class Session(BaseModel):
    """The fields of a Checkout Session that count here: what was paid, the metadata that it has from its payment link,
    and who paid, as far as Stripe asked. Other metadata of the seller's does not count."""

    id: Line
    payment_status: Literal["paid", "unpaid", "no_payment_required"]
    amount_total: Amount
    currency: Currency
    payment_intent: Line | None = None
    listing: Line = Field("", validation_alias=AliasPath("metadata", LISTING))
    catalogue: Line = Field("", validation_alias=AliasPath("metadata", CATALOGUE))
    email: Person | None = Field(None, validation_alias=AliasPath("customer_details", "email"))
    name: Person | None = Field(None, validation_alias=AliasPath("customer_details", "name"))
    tax: Amount = Field(0, validation_alias=AliasPath("total_details", "amount_tax"))


class Charge(BaseModel):
    """The fields of a Charge that count here; `amount_refunded` is all that was paid back of it so far."""

    id: Line
    payment_intent: Line | None = None
    amount_refunded: Amount
    currency: Currency


class Event(BaseModel):
    id: Line = Field(min_length=1)
    type: Line
    data: dict[str, Any]


def check_signature(payload: bytes, header: str, secret: str) -> None:
    """Raises UserError unless the header `Stripe-Signature` is over this payload, with this secret, and not older or
    younger than TOLERANCE."""
    require_stripe("The notices of Stripe")
    import stripe

    try:
        stripe.WebhookSignature.verify_header(payload, header, secret, TOLERANCE)
    except (stripe.SignatureVerificationError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"This notice is not signed by Stripe with the secret of this endpoint, or it is older than {TOLERANCE} "
            f"seconds: {str(error)[:200]}. If the clock of this machine is wrong, set it.",
            "forged",
        ) from None
    signed = next(int(part[2:]) for part in header.split(",") if part.startswith("t="))
    if signed > time.time() + TOLERANCE:
        raise UserError(
            f"This notice is signed {signed - time.time():.0f} s in the future: the clock of this machine is behind.",
            "clock",
        )


def notice_of(payload: bytes) -> Notice | str:
    """What an event says, or why it is of no concern here. Raises UserError for an invalid event of Stripe."""
    try:
        return _notice(Event.model_validate(parse_json(payload)))
    except (ValidationError, ValueError, KeyError) as error:
        raise UserError(f"This is not an event of Stripe that can be read: {faults(error)}.", "notice") from None


def _notice(event: Event) -> Notice | str:
    if event.type in PAID:
        session = Session.model_validate(event.data["object"])
        if session.payment_status == "unpaid":
            return f"the payment of {session.id} is not complete yet"
        amounts = [a for a in (session.amount_total, session.amount_total - session.tax) if a >= 0]
        paid = tuple(dict.fromkeys(money_at_stripe(a, session.currency) for a in amounts))
        payment, buyer = (
            session.payment_intent or session.id,
            {"email": session.email or "", "name": session.name or ""},
        )
        return Notice("payment", event.id, payment, paid, session.id, session.catalogue, session.listing, buyer)
    if event.type == REFUNDED:
        charge = Charge.model_validate(event.data["object"])
        paid = (money_at_stripe(charge.amount_refunded, charge.currency),)
        return Notice("refund", event.id, charge.payment_intent or charge.id, paid)
    return f"events of the type {event.type} are not heeded"


def payment_link(catalogue: Catalogue, listing: Listing, key: str, base: str | None = None) -> tuple[str, str]:
    """Make a payment link for a listing that has a price: its URL and its id. An earlier one stops
    working. `base`: the address of another server than Stripe's.

    Raises UserError if Stripe refuses.
    """
    require_stripe("A payment link")
    import stripe

    money = listing.money
    assert money is not None
    client = stripe.StripeClient(key, base_addresses=None if base is None else {"api": base})
    data = {
        "currency": money.currency.lower(),
        "unit_amount": amount_at_stripe(money),
        "product_data": {"name": listing.title, "metadata": {LISTING: listing.id}},
    }
    done = {"type": "redirect", "redirect": {"url": f"{catalogue.settings.delivery}/orders/{{CHECKOUT_SESSION_ID}}"}}
    params: Any = {
        "line_items": [{"price_data": data, "quantity": 1}],
        "metadata": {LISTING: listing.id, CATALOGUE: catalogue.settings.id},
        "after_completion": done,
    }
    # An attempt that is repeated makes one link; a price that was left and is taken again makes another.
    once = f"{catalogue.settings.id}-{listing.id}-{money.amount}-{money.currency}-{listing.payment_link}"
    try:
        made = client.v1.payment_links.create(params, {"idempotency_key": once})
        if listing.payment_link and listing.payment_link != made.id:
            client.v1.payment_links.update(listing.payment_link, {"active": False})
    except stripe.StripeError as error:
        raise UserError(
            f"Stripe made no payment link for {listing.id}: {error.user_message or error}.", "stripe"
        ) from None
    return made.url, made.id
