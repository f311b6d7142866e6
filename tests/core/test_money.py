"""Money is whole numbers of minor units, and is never lost or made."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.core import UserError
from afresh.core.money import CURRENCIES, MOST, Money, apportioned, parse_money


@pytest.mark.parametrize(
    ("text", "amount", "written"),
    [
        ("12.50 EUR", 1250, "12.50 EUR"),
        ("EUR 12.5", 1250, "12.50 EUR"),
        ("0.07 usd", 7, "0.07 USD"),
        ("1250 JPY", 1250, "1250 JPY"),
        ("1.005 KWD", 1005, "1.005 KWD"),
        ("9999999999.99 EUR", MOST, "9999999999.99 EUR"),
    ],
)
def test_prices_are_read_and_written(text: str, amount: int, written: str) -> None:
    assert parse_money(text).amount == amount and str(parse_money(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        *("NaN EUR", "nan", "inf EUR", "-1 EUR", "1e30 EUR", "1" + "0" * 30 + " EUR", "1.005 EUR", "1.0 JPY"),
        *("12.50", "EUR", "12.50 XYZ", "", "1 2 EUR", "٣ EUR", "0x10 EUR", "1_000 EUR", "10000000000 EUR", ".5 EUR"),
        "1,50 EUR",
    ],
)
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"price|decimals|largest"):
        parse_money(text)


@given(st.sampled_from(sorted(CURRENCIES)), st.integers(0, MOST))
def test_every_amount_is_read_as_it_is_written(code: str, amount: int) -> None:
    money = Money(amount=amount, currency=code)
    assert parse_money(str(money)) == money
    assert Fraction(money.decimal) * 10 ** CURRENCIES[code] == amount


def test_an_amount_that_is_owed_is_written() -> None:
    assert [Money(amount=a, currency="EUR").decimal for a in (-5, -1250, 0)] == ["-0.05", "-12.50", "0.00"]
    assert str(Money(amount=-3, currency="JPY")) == "-3 JPY"


@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_parts_add_up_and_none_is_a_unit_away_from_its_share(amount: int, weights: list[int]) -> None:
    if not sum(weights):
        weights[0] = 1
    parts = apportioned(amount, weights)
    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        exact = Fraction(amount * weight, sum(weights))
        assert math.floor(exact) <= part <= math.ceil(exact)


def test_the_largest_remainder_gets_the_unit() -> None:
    """Hamilton's method: 100 by 1/3, 1/3, 1/3 and 10 by 1/7, 2/7, 4/7 (1.43, 2.86, 5.71)."""
    assert apportioned(100, [1, 1, 1]) == [34, 33, 33]
    assert apportioned(10, [1, 2, 4]) == [1, 3, 6]


def test_the_currencies_are_those_of_another_list() -> None:
    numbers = pytest.importorskip("babel.numbers")
    known = numbers.list_currencies()
    assert set(CURRENCIES) <= set(known)
    # CLDR shows fewer digits where nobody uses the minor unit; it never has more than ISO 4217.
    assert all(numbers.get_currency_precision(code) <= digits for code, digits in CURRENCIES.items())
