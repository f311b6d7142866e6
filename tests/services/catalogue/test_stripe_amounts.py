"""Stripe has units of its own for some currencies."""

from __future__ import annotations

import pytest

from afresh.core import UserError
from afresh.core.money import Money
from afresh.services.catalogue.stripe import amount_at_stripe, money_at_stripe


def test_amounts_are_those_of_stripe() -> None:
    """Its list of zero-decimal currencies and of special cases (https://docs.stripe.com/currencies)."""
    cases = [
        ("EUR", 1250, 1250),
        ("JPY", 500, 500),
        ("ISK", 5, 500),
        ("UGX", 7, 700),
        ("MGA", 500, 5),
        ("KWD", 5120, 5120),
    ]
    for code, ours, theirs in cases:
        money = Money(amount=ours, currency=code)
        assert amount_at_stripe(money) == theirs and money_at_stripe(theirs, code.lower()) == money
    for code, amount in (("MGA", 550), ("KWD", 5124)):
        with pytest.raises(UserError, match="Round the price"):
            amount_at_stripe(Money(amount=amount, currency=code))
    with pytest.raises(ValueError, match="no whole amount"):
        money_at_stripe(550, "isk")
    with pytest.raises(ValueError, match="no currency"):
        money_at_stripe(1, "xxq")
