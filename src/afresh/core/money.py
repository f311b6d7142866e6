"""Amounts of money: whole numbers of minor units of a currency, decimal numbers where they are typed, never floats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from afresh.core.errors import UserError

MOST = 10**12 - 1  # minor units of an amount that is typed: 10,000 million euros
MOST_DECIMALS = 9  # of a price that is finer than minor units, as that of a kilowatt-hour may be
ACCEPTED = 'Accepted: a number from 0 and a currency of ISO 4217, as "0.30 EUR".'
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# ISO 4217, the currencies that are in use, by the digits of their minor unit (https://www.iso.org/iso-4217).
DIGITS: dict[int, str] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW "
    "CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV "
    "MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD "
    "SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
CURRENCIES = {code: digits for digits, codes in DIGITS.items() for code in codes.split()}


def _known(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError(f"{code!r} is not a currency of ISO 4217, as EUR, USD or JPY are")
    return code


class Money(BaseModel):
    """An amount in minor units (cents of EUR, yen of JPY), which may be negative, and its currency."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    amount: int
    currency: Annotated[str, AfterValidator(_known)]

    @property
    def decimal(self) -> str:
        """The amount in major units with the decimals of its currency: 12.50, or 1250 of JPY."""
        return f"{Decimal(self.amount).scaleb(-CURRENCIES[self.currency]):f}"

    def __str__(self) -> str:
        return f"{self.decimal} {self.currency}"


def parse_money(text: str, name: str = "price") -> Money:
    """The amount that a text as "12.50 EUR" stands for. Raises UserError as `parse_amount`, and for more decimals than
    the currency has."""
    number, currency = parse_amount(text, name)
    if len(number.partition(".")[2]) > CURRENCIES[currency]:
        raise _refused(text, name, f"{currency} has {CURRENCIES[currency]} decimals, so round it to what is paid.")
    return Money(amount=int(Decimal(number).scaleb(CURRENCIES[currency])), currency=currency)


def parse_amount(text: str, name: str) -> tuple[str, str]:
    """A decimal number as it is typed, and its currency: "0.2875 EUR" and "EUR 0.2875" alike.

    Raises UserError, with the `name` of what is given, for anything else, as numbers below 0, too large, or not finite,
    and currencies that are none.
    """
    words = text.split()
    if len(words) != 2:
        raise _refused(text, name, "it is not a number and a currency.")
    number, code = words if words[1][:1].isalpha() else reversed(words)
    currency = code.upper()
    if currency not in CURRENCIES:
        near = get_close_matches(currency[:8], CURRENCIES, 1, 0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise _refused(text, name, f"{code[:20]!r} is not a currency in use.{hint}")
    if NUMBER.fullmatch(number) is None:
        below = number.startswith("-") and NUMBER.fullmatch(number[1:])
        raise _refused(text, name, f"{number[:40]} {'is below 0' if below else 'is not a finite decimal number'}.")
    largest = Money(amount=MOST, currency=currency)
    if len(number.partition(".")[2]) > MOST_DECIMALS or Decimal(number) > Decimal(largest.decimal):
        raise _refused(text, name, f"too many digits: at most {MOST_DECIMALS} decimals, and {largest} in all.")
    return number, currency


def _refused(text: str, name: str, why: str) -> UserError:
    return UserError(f"`{name}={text[:60]}`: {why} {ACCEPTED}", "money")


def apportioned(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount divided in proportion to weights, by the largest remainder (Hamilton's method), so that the parts add
    up to it exactly; of equal remainders, the first gets the unit. The amount may be negative."""
    whole = sum(weights)
    assert whole > 0 and min(weights) >= 0
    if amount < 0:
        return [-part for part in apportioned(-amount, weights)]
    parts = [amount * w // whole for w in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(amount * weights[i] % whole), i))
    for i in order[: amount - sum(parts)]:
        parts[i] += 1
    return parts
