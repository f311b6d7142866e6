"""What training and works cost: seconds, energy, and money at the prices that the user states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from afresh.core import UserError
from afresh.core.money import CURRENCIES, parse_amount
from afresh.data.preferences import preferences
from afresh.engine.training.usage_meter import Usage
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from afresh.runs.usage import read_usage
from afresh.services.labels.label import Cost, Price, Stage

JOULES_A_KWH = 3_600_000
SMALL = 6  # decimals beside those of minor units: one work costs less than a cent


@dataclass(frozen=True)
class Prices:
    """What a kilowatt-hour costs, and an hour of the machine beside its energy."""

    kwh: Price | None = None
    hour: Price | None = None

    def money(self, seconds: float, joules: float) -> Price | None:
        """What seconds and joules cost, exact until it is rounded to millionths of minor units. None without a price.
        Raises UserError if the prices are in two currencies."""
        used = ((self.kwh, Fraction(str(joules)) / JOULES_A_KWH), (self.hour, Fraction(str(seconds)) / 3600))
        given = [(price, amount) for price, amount in used if price is not None]
        currencies = {price.currency for price, _ in given}
        if len(currencies) > 1:
            raise UserError("`price_kwh` and `price_hour` are in two currencies. Give both in one.", "money")
        for currency in currencies:
            exact = sum((Fraction(price.amount) * amount for price, amount in given), Fraction())
            return price_of(exact, currency, CURRENCIES[currency] + SMALL)
        return None

    def json(self) -> dict[str, Price]:
        named = {"kilowatt-hour": self.kwh, "hour of the machine": self.hour}
        return {name: price for name, price in named.items() if price is not None}


def price_of(exact: Fraction, currency: str, decimals: int) -> Price:
    """An exact amount rounded half to even, to so many decimals, and to minor units."""
    amount = Decimal(round(exact * 10**decimals)).scaleb(-decimals)
    return Price(amount=f"{amount:f}", currency=currency, minor_units=round(exact * 10 ** CURRENCIES[currency]))


def parse_price(text: str, name: str) -> Price:
    """A price that may be finer than minor units, with at least their decimals. Raises UserError as `parse_amount`."""
    number, currency = parse_amount(text, name)
    return price_of(Fraction(number), currency, max(len(number.partition(".")[2]), CURRENCIES[currency]))


def stated_prices() -> Prices:
    """The prices in the user's preferences. Raises UserError if one of them is not an amount of money."""
    stated = {name: getattr(preferences(), name) for name in ("price_kwh", "price_hour")}
    return Prices(*(None if text is None else parse_price(text, name) for name, text in stated.items()))


def cost_of(usage: Usage, prices: Prices, share: float = 1.0, decimals: int = 3) -> Cost:
    """What a share of `usage` takes, in seconds and joules with so many decimals."""
    seconds, joules = round(usage.seconds * share, decimals), round(usage.joules * share, decimals)
    return Cost(
        seconds=seconds,
        joules=joules,
        estimated_joules=round(usage.estimated_joules * share, decimals),
        measured=usage.measured,
        method=usage.method,
        money=prices.money(seconds, joules),
    )


def stage_of(run: Run, id: str, name: str, prices: Prices) -> Stage:
    """What training a run took, over all commands that trained it. Raises UserError if its records are damaged."""
    sessions = read_usage(run.path)
    if sessions:
        apart: dict[str, float] = {}
        for session in sessions:
            for kind, seconds in session.apart.items():
                apart[kind] = round(apart.get(kind, 0.0) + seconds, 3)
        cost = together([cost_of(s.usage, Prices()) for s in sessions])
        money = prices.money(cost.seconds, cost.joules)
        cost = cost.model_copy(update={"money": money})
        return Stage(name=name, of=id, sessions=len(sessions), cost=cost, apart=apart)
    # A run of an earlier version: an estimate from the seconds in its log, as if all threads were busy.
    seconds, train = AboutRun(run).seconds, run.record.train
    gpu = 0.0 if train.device == "cpu" else seconds
    usage = Usage(seconds=seconds, cpu_seconds=seconds * (1 if gpu else train.threads), gpu_seconds=gpu)
    return Stage(name=name, of=id, sessions=0, cost=cost_of(usage, prices), known=False)


def together(costs: Sequence[Cost]) -> Cost:
    """The sum of costs, without money."""
    methods = dict.fromkeys(c.method for c in costs)
    return Cost(
        seconds=round(sum(c.seconds for c in costs), 3),
        joules=round(sum(c.joules for c in costs), 3),
        estimated_joules=round(sum(c.estimated_joules for c in costs), 3),
        measured=all(c.measured for c in costs),
        method="; ".join(methods),
    )
