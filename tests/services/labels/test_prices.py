"""Amounts of money are exact, and what is none is refused in words."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afresh.core import UserError
from afresh.core.money import CURRENCIES
from afresh.data.preferences import preferences
from afresh.engine.training.usage_meter import Usage
from afresh.services.labels.costs import JOULES_A_KWH, Prices, cost_of, parse_price, price_of

AMOUNTS = st.integers(0, 10**8 - 1), st.integers(0, 10**9 - 1), st.sampled_from(sorted(CURRENCIES))


@settings(max_examples=40, deadline=None)
@given(*AMOUNTS)
def test_what_is_read_is_what_was_written(whole: int, billionths: int, currency: str) -> None:
    found = parse_price(f"{whole}.{billionths:09d} {currency}", "price_kwh")
    assert Fraction(found.amount) == whole + Fraction(billionths, 10**9)
    assert parse_price(str(found), "price_kwh") == found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**8), st.integers(0, 10**8))
def test_sums_have_no_error(kwh: int, hour: int) -> None:
    """The sum of floats 0.1 + 0.2 is not 0.3."""
    prices = Prices(*(price_of(Fraction(cents, 100), "EUR", 2) for cents in (kwh, hour)))
    found = prices.money(3600, JOULES_A_KWH)
    assert found is not None and found.minor_units == kwh + hour


def test_minor_units_are_those_of_the_currency_rounded_half_to_even() -> None:
    for text, minor in (("12 JPY", 12), ("0.005 EUR", 0), ("0.015 EUR", 2), ("1.2345 KWD", 1234), ("1 CLF", 10_000)):
        assert parse_price(text, "price_kwh").minor_units == minor
    assert price_of(Fraction(1, 3), "USD", 2).amount == "0.33" and price_of(Fraction(2, 3), "JPY", 0).amount == "1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nan EUR", "nan is not a finite decimal number"),
        ("inf USD", "no finite decimal number"),
        ("-1 EUR", "-1 is below 0"),
        ("1e30 EUR", "no finite decimal number"),
        (f"{10**30} EUR", "too many digits"),
        ("0.1234567891 EUR", "too many digits"),
        ("٣ EUR", "no finite decimal number"),
        ("3 EURO", "no currency in use. Did you mean EUR?"),
        ("3 XXQ", "no currency in use"),
        ("3", "not a number and a currency"),
        ("", "not a number and a currency"),
        ("0.3 EUR <script>", "not a number and a currency"),
    ],
)
def test_what_is_no_price_is_refused_with_what_is_accepted(
    text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as error:
        parse_price(text, "price_kwh")
    assert why in str(error.value) and '"0.30 EUR"' in str(error.value)
    monkeypatch.setenv("AFRESH_PRICE_KWH", text)
    with pytest.raises(UserError, match="AFRESH_PRICE_KWH") as error:
        preferences()
    assert why.partition(".")[0].casefold() in str(error.value).casefold()


def test_prices_are_in_one_currency(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="two currencies"):
        Prices(parse_price("1 EUR", "price_kwh"), parse_price("1 USD", "price_hour")).money(1, 1)
    monkeypatch.setenv("AFRESH_PRICE_KWH", "0.30 EUR")
    monkeypatch.setenv("AFRESH_PRICE_HOUR", "1 USD")
    with pytest.raises(UserError, match="one currency"):
        preferences()


def test_costs_follow_from_prices_exactly() -> None:
    """2 kWh at 0.30 EUR and an hour and a half at 1.10 EUR are 2.25 EUR."""
    prices = Prices(parse_price("0.30 EUR", "price_kwh"), parse_price("1.10 EUR", "price_hour"))
    usage = Usage(seconds=5400, cpu_seconds=1, cpu_joules=7_200_000)
    money = cost_of(usage, prices).money
    assert money is not None and (Fraction(money.amount), money.minor_units) == (Fraction("2.25"), 225)
    each = cost_of(usage, prices, 1 / 3, decimals=6)
    assert each.seconds == 1800 and each.money is not None and Fraction(each.money.amount) == Fraction("0.75")
    assert cost_of(usage, Prices()).money is None
