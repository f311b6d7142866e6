"""A label in words: names with values, as a report, a page and a terminal show them."""

from __future__ import annotations

from decimal import Decimal

from afresh.core.money import CURRENCIES
from afresh.engine.training.progress import clock
from afresh.services.labels.label import Cost, Follows, Label, Price
from afresh.services.labels.run_label import total

SHOWN = 12  # digits of a digest
MOST = 8  # parts that a line lists
MINUTE = 120.0  # seconds, up to which a time is shown in smaller units
NOTHING = "nothing that is known"


def rows_of(label: Label) -> list[tuple[str, str]]:
    """The label as (name, value)."""
    rows = [("content hash", label.id)]
    rows += [] if label.licence is None else [("licence", label.licence)]
    rows += [(name, f"{value:,}" if isinstance(value, int) else value) for name, value in label.facts.items()]
    rows.append(("made from", made_from(label)))
    rows.append(("licences that follow", "; ".join(map(followed, label.licences)) or NOTHING))
    rows.append(("consent", label.consent.sentence))
    return rows + cost_rows(label)


def cost_rows(label: Label) -> list[tuple[str, str]]:
    """The costs as (name, value)."""
    rows = [] if label.training is None else [("training", cost_words(label.training))]
    for stage in label.stages[1:]:
        rows.append((f"training {stage.name}", cost_words(stage.cost)))
    if (whole := total(label)) is not None:
        rows.append(("training, all together", cost_words(whole)))
    for name, cost in (("one work", label.work), ("a thousand works", label.thousand_works)):
        if cost is not None:
            rows.append((name, cost_words(cost)))
    return rows


def sentences_of(label: Label) -> list[str]:
    """What a card says of a model beside its licences: what it is made from, and what it cost."""
    said = [f"Its content hash is {label.id}.", f"Made from: {made_from(label)}."]
    return said + [f"{name[:1].upper()}{name[1:]}: {text}." for name, text in cost_rows(label)]


def made_from(label: Label) -> str:
    """What the subject was made from directly, and of these things what they were made from."""
    names = {p.id: f"{p.name} ({short(p.id)})" for p in label.parts}
    said = [
        f"{link.how} {names.get(link.source, link.source)}"
        if link.of == label.id
        else f"{names.get(link.of, link.of)} {link.how} {names.get(link.source, link.source)}"
        for link in label.links
    ]
    more = f"; and {len(said) - MOST:,} more" if len(said) > MOST else ""
    return "; ".join(said[:MOST]) + more or NOTHING


def short(id: str) -> str:
    """An id as a person compares it."""
    algorithm, _, digest = id.partition(":")
    return "no digest" if algorithm == "name" else digest[:SHOWN]


def followed(licence: Follows) -> str:
    """A licence with what it asks for and of what."""
    asked = f", asks for {', '.join(licence.duties)}" if licence.duties else ""
    return f"{licence.licence} ({', '.join(licence.of[:MOST])}{asked})"


def cost_words(cost: Cost) -> str:
    """What something took, as "1:40, 0.33 Wh (estimated), 0.0001 EUR"."""
    how = "measured" if cost.measured else "estimated"
    if not cost.measured and cost.joules != cost.estimated_joules:
        how = "partly estimated"
    money = "" if cost.money is None else f", {price_words(cost.money)}"
    time = f"{cost.seconds:.3g} s" if cost.seconds < MINUTE else clock(cost.seconds)
    return f"{time}, {energy_words(cost.joules)} ({how}){money}"


def energy_words(joules: float) -> str:
    """Joules below a watt-hour's, else watt-hours or kilowatt-hours."""
    if joules < 3_600:
        return f"{joules:.3g} J"
    return f"{joules / 3_600:.3g} Wh" if joules < 3_600_000 else f"{joules / 3_600_000:,.4g} kWh"


def price_words(price: Price) -> str:
    """An amount to minor units, or to two significant digits where it has less than ten of these."""
    exact, digits = Decimal(price.amount), CURRENCIES[price.currency]
    if exact and abs(price.minor_units) < 10:
        digits = max(digits, 1 - exact.adjusted())
    return f"{exact:.{digits}f} {price.currency}"
