"""Which columns of a table say who did what when."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from afresh.data.tables.roles import columns_by_role

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


def columns_by_name(
    names: Sequence[str], named: Mapping[str, str | None], values_of: Callable[[str], Sequence[Any]] = lambda name: ()
) -> dict[str, str]:
    """The columns of a log by their roles: by their names, and that of times by its values as well, of which
    `values_of` gives some; `named` gives those that a user chose. A session stands for a user where none is named."""
    of = columns_by_role(names, NAMES, {role: c for role, c in named.items() if c is not None}, events=values_of)
    if "session" in of:
        of.setdefault("user", of["session"])
    return {role: of[role] for role in ROLES if role in of}
