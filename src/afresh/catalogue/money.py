"""Amounts of money: whole numbers of a currency's minor unit, and never floating-point numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.functional_validators import AfterValidator

from afresh.core import UserError

MOST = 10**12 - 1  # minor units of an amount; 10,000 million euros
FREE = "free"
# Alphabetic codes of ISO 4217 of which goods have prices, and those whose minor unit is not a hundredth.
CODES = frozenset(
    """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY
    COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS
    INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP
    MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR
    SDG SEK SGD SHP SLE SOS SRD SSP STN SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST
    XAF XCD XCG XOF XPF YER ZAR ZMW ZWG""".split()  # noqa: SIM905
)
WHOLE = frozenset("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF".split())  # noqa: SIM905
THOUSANDTHS = frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"})


def _known(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"{code!r} is no currency of ISO 4217, as EUR, USD or JPY are")
    return code


class Money(BaseModel):
    """An amount in minor units (cents of EUR, yen of JPY) and its currency."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    amount: int = Field(ge=0, le=MOST)
    currency: Annotated[str, AfterValidator(_known)]

    @property
    def decimal(self) -> str:
        """The amount in major units with the decimals of its currency: 12.50, or 1250 of JPY."""
        return decimal(self.amount, self.currency)

    def __str__(self) -> str:
        return f"{self.decimal} {self.currency}"


def decimals(currency: str) -> int:
    return 0 if currency in WHOLE else 3 if currency in THOUSANDTHS else 2


def decimal(amount: int, currency: str) -> str:
    """An amount, which may be negative, in major units."""
    places = decimals(currency)
    digits = f"{abs(amount):0{places + 1}d}"
    sign = "-" if amount < 0 else ""
    return sign + (digits if not places else f"{digits[:-places]}.{digits[-places:]}")


def parse_money(text: str) -> Money:
    """The amount that a person writes as `12.50 EUR` or `EUR 12.50`.

    Raises UserError for what is no such amount: another number, a negative one, one with more decimals than the
    currency has, or one that is too large.
    """
    words = text.strip().split()
    number, code = (words if not words[0][:1].isalpha() else words[::-1]) if len(words) == 2 else (text, "")
    code = code.upper()
    if code not in CODES or re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) is None:
        raise UserError(
            f"{text!r} is no price. Write a number and a currency of ISO 4217, as in price='12.50 EUR' or "
            f"price='1250 JPY', or price='{FREE}'.",
            "price",
        )
    whole, _, part = number.partition(".")
    places = decimals(code)
    if len(part) > places:
        raise UserError(
            f"{text!r} has {len(part)} decimals, and {code} has {places}. Round it to what is paid.", "price"
        )
    if len(whole) > len(str(MOST)) or (amount := int(whole + part.ljust(places, "0"))) > MOST:
        raise UserError(f"{text!r} is more than {Money(amount=MOST, currency=code)}, the largest price.", "price")
    return Money(amount=amount, currency=code)


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
