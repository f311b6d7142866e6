"""Which columns of a table say who did what when."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afresh.data.tables.roles import clock_column, columns_by_role, time_column

NUMBERED = "(id|nr|no|number|nummer|code|key)"
USERS = re.compile(
    r"(user|customer|reviewer|member|visitor|profile|person|client|account|buyer|reader|kunden?|benutzer|nutzer|käufer"
    rf"|mitglieds?|leser|acheteur|utilisateur|cliente|usuario)s?({NUMBERED}|name)?|uid"
    r"|((customer|user|billing)?e?mail(address|adresse|billing)?)"
)
ITEMS = re.compile(
    r"(item|movie|film|book|product|track|song|artist|article|business|anime|game|recipe|sku|video|page|content|goods"
    r"|offer|news|artikel|produkt|material|ware|buch|lied|produit|livre|producto|articulo|lineitem|stock)s?"
    rf"({NUMBERED}|name|uri|title|sku)|(item|movie|film|book|product|track|song|artist|article|business|anime|game|recipe"
    r"|sku|video|page|content|good|offer|new|artikel|produkt|material|ware|buch|lied|produit|livre|producto)s?"
    r"|asin|isbn|parentasin|iid|title|titel|titre"
)
RATINGS = re.compile(r"(rating|score|stars|overall|vote|playcount|weight|count|bewertung|sterne|étoile)s?")
EVENTS = re.compile(r"(event|eventtype|action|behaviou?r(type)?|type|interaction(type)?|kind|ereignis|aktion)")
SESSIONS = re.compile(
    r"(session|visit|basket|order|invoice|playlist|cart|bon|beleg|bestellung|bestell|auftrags?|rechnungs?|warenkorb"
    rf"|receipt|transaction|commande|facture)s?{NUMBERED}?"
)
NAMES = {"user": USERS, "item": ITEMS, "rating": RATINGS, "event": EVENTS, "session": SESSIONS}
ROLES = ("user", "item", "time", "clock", "rating", "event", "session")
LOOKED_AT = 200  # values that say whether a column holds times


@dataclass(frozen=True)
class InteractionColumns:
    """The names of the columns of a log; None for what it lacks. `clock`: that of the time of day, if that of the time
    has the day only. `others`: those that may be features."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    clock: str | None = None
    rating: str | None = None
    event: str | None = None
    session: str | None = None
    others: tuple[str, ...] = ()

    def words(self) -> str:
        """What was chosen, for a note."""
        of = {role: repr(column) for role in ROLES if (column := getattr(self, role)) is not None}
        if clock := of.pop("clock", None):
            of["time"] += f" and {clock} together"
        return ", ".join(f"{role} is {column}" for role, column in of.items())


def columns_by_name(
    names: Sequence[str], named: Mapping[str, str | None], values_of: Callable[[str], Sequence[Any]] = lambda name: ()
) -> InteractionColumns:
    """The columns by their names, and that of times by its values as well, of which `values_of` gives some; `named`
    gives those that a user chose, by role."""
    of = columns_by_role(names, NAMES, {role: column for role, column in named.items() if column is not None})
    if "time" not in of:
        when = time_column([n for n in names if n not in of.values()], values_of)
        of |= {} if when is None else {"time": when}
    if "time" in of and "clock" not in of:
        clock = clock_column([n for n in names if n not in of.values()], of["time"], values_of)
        of |= {} if clock is None else {"clock": clock}
    others = tuple(n for n in names if n not in of.values())
    if "session" in of:
        of.setdefault("user", of["session"])
    return InteractionColumns(**of, others=others)
