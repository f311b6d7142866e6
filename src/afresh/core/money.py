"""Amounts of money: a whole number of the smallest part that counts, and a currency. Never a float."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction

from afresh.core.errors import UserError

MOST_BEFORE, MOST_AFTER = 12, 9  # digits before and after the point
ACCEPTED = 'Accepted: a number from 0 and a currency of ISO 4217, as "0.30 EUR", with at most 12 digits and 9 decimals.'
NUMBER = re.compile(r"(\d+)(?:\.(\d+))?")
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


@dataclass(frozen=True)
class Money:
    """`units` of 10^-`decimals` of a currency: Money(30, "EUR", 2) is 0.30 EUR. `decimals` is at least the digits of
    the currency's minor unit."""

    units: int
    currency: str
    decimals: int

    @property
    def exact(self) -> Fraction:
        """The amount in whole units of the currency."""
        return Fraction(self.units, 10**self.decimals)

    @property
    def minor_units(self) -> int:
        """The amount in minor units, as cents, rounded half to even."""
        return round(self.exact * Fraction(10) ** CURRENCIES[self.currency])

    @property
    def number(self) -> str:
        """The amount as a decimal number, with all its digits: "0.30"."""
        sign, digits = "-" if self.units < 0 else "", str(abs(self.units)).rjust(self.decimals + 1, "0")
        return f"{sign}{digits[: -self.decimals]}.{digits[-self.decimals :]}" if self.decimals else sign + digits

    def __str__(self) -> str:
        return f"{self.number} {self.currency}"

    def __add__(self, other: Money) -> Money:
        """Raises UserError for another currency: what one is worth in the other is not known."""
        if other.currency != self.currency:
            raise UserError(
                f"{self} and {other} cannot be added, since they are in two currencies. Give both in one.", "currency"
            )
        return rounded(self.exact + other.exact, self.currency, max(self.decimals, other.decimals))

    def json(self) -> dict[str, str | int]:
        """The amount for JSON, in which no float stands for money."""
        return {"amount": self.number, "currency": self.currency, "minor_units": self.minor_units}


def rounded(amount: Fraction, currency: str, decimals: int | None = None) -> Money:
    """An exact amount rounded half to even, to minor units or to so many decimals."""
    digits = CURRENCIES[currency] if decimals is None else max(decimals, CURRENCIES[currency])
    return Money(round(amount * 10**digits), currency, digits)


def parse_money(text: str, name: str = "price") -> Money:
    """The amount that a text as "0.30 EUR" stands for. Raises UserError, with the `name` of what is given, for anything
    else, as numbers below 0, too large, or not finite, and currencies that are none."""
    words = text.split()
    if len(words) != 2:
        raise UserError(f"`{name}={text[:60]}`: it is no number and a currency. {ACCEPTED}", "money")
    number, currency = words[0], words[1].upper()
    if currency not in CURRENCIES:
        near = get_close_matches(currency[:8], CURRENCIES, 1, 0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"`{name}={text[:60]}`: {words[1][:20]!r} is no currency in use.{hint} {ACCEPTED}", "currency")
    found = NUMBER.fullmatch(number)
    if found is None or not number.isascii():
        why = "is below 0" if number.startswith("-") and NUMBER.fullmatch(number[1:]) else "is no finite decimal number"
        raise UserError(f"`{name}={text[:60]}`: {number[:40]} {why}. {ACCEPTED}", "money")
    whole, after = found[1].lstrip("0") or "0", (found[2] or "").rstrip("0")
    if len(whole) > MOST_BEFORE or len(after) > MOST_AFTER:
        raise UserError(f"`{name}={text[:60]}`: the number has too many digits. {ACCEPTED}", "money")
    decimals = max(len(after), CURRENCIES[currency])
    return Money(int(whole + after.ljust(decimals, "0")), currency, decimals)
