"""A catalogue of small files, and notices in Stripe's wire format, signed as Stripe signs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from afresh.services.catalogue.add import add
from afresh.services.catalogue.folder import Catalogue

SECRET = "whsec_of_these_tests"
Add = Callable[..., Any]


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """With the poem `poem` for 12.50 EUR, and the free picture `picture`."""
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    made = Catalogue.init(tmp_path / "shop", name="Works", maker="Nadja", url="https://example.org/shop")
    poem, picture = tmp_path / "poem.txt", tmp_path / "picture.png"
    poem.write_text("The sea at night keeps what the day has lost. " * 40)
    Image.new("RGB", (80, 60), "teal").save(picture)
    add(made, poem, kind="work", licence="CC-BY-4.0", title="Poem", price="12.50 EUR", link="https://buy.example.org/1")
    add(made, picture, kind="work", licence="CC0-1.0", title="Picture", price="free", summary="A plane of teal.")
    return made


def session(
    order: str = "cs_1",
    listing: str = "poem",
    amount: int = 1250,
    currency: str = "eur",
    event: str = "evt_1",
    payment: str = "pi_1",
    kind: str = "checkout.session.completed",
    metadata: dict[str, str] | None = None,
    status: str = "paid",
    tax: int = 0,
) -> dict[str, Any]:
    """A notice that a Checkout Session was paid, with the fields that Stripe's have
    (https://docs.stripe.com/api/checkout/sessions/object)."""
    found = {
        "id": order,
        "object": "checkout.session",
        "amount_subtotal": amount,
        "amount_total": amount,
        "currency": currency,
        "customer_details": {"email": "Ada@example.org", "name": "Ada <b>L.</b>", "phone": None, "tax_ids": []},
        "livemode": False,
        "metadata": {"afresh_listing": listing} if metadata is None else metadata,
        "mode": "payment",
        "payment_intent": payment,
        "payment_link": "plink_1",
        "payment_status": status,
        "status": "complete",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": tax},
    }
    return envelope(event, kind, found)


def refund(payment: str = "pi_1", amount: int = 1250, event: str = "evt_r", currency: str = "eur") -> dict[str, Any]:
    """A notice that a charge was paid back (https://docs.stripe.com/api/charges/object)."""
    charge = {
        "id": "ch_1",
        "object": "charge",
        "amount": 1250,
        "amount_refunded": amount,
        "currency": currency,
        "payment_intent": payment,
        "refunded": amount == 1250,
    }
    return envelope(event, "charge.refunded", charge)


def envelope(event: str, kind: str, of: dict[str, Any]) -> dict[str, Any]:
    about = {"id": event, "object": "event", "api_version": "2025-09-30.clover", "created": 1_800_000_000, "type": kind}
    return {**about, "livemode": False, "pending_webhooks": 1, "request": {"id": None}, "data": {"object": of}}


def signed(payload: bytes, at: float | None = None, secret: str = SECRET) -> str:
    """The header Stripe-Signature (https://docs.stripe.com/webhooks#verify-manually)."""
    t = int(time.time() if at is None else at)
    return f"t={t},v1={hmac.new(secret.encode(), f'{t}.'.encode() + payload, hashlib.sha256).hexdigest()}"


def wire(event: dict[str, Any]) -> bytes:
    return json.dumps(event, indent=2).encode()
