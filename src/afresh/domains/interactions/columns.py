"""Which columns of a table say who did what when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afresh.data.tables.roles import columns_by_role

USERS = re.compile(
    r"(user|customer|reviewer|member|visitor|profile|person|client|account|buyer|reader)s?(id|name)?|uid"
)
ITEMS = re.compile(
    r"(item|movie|film|book|product|track|song|artist|article|business|anime|game|recipe|sku|video|page|content|goods"
    r"|offer|news)s?(id|name|uri|title)?|asin|isbn|parentasin|iid"
)
TIMES = re.compile(r"(time|timestamp|date|datetime|when|ts|createdat|eventtime|unixreviewtime|reviewtime|day|playedat)")
RATINGS = re.compile(r"(rating|score|stars|overall|vote|playcount|weight|count)s?")
EVENTS = re.compile(r"(event|eventtype|action|behaviou?r(type)?|type|interaction(type)?|kind)")
SESSIONS = re.compile(r"(session|visit|basket|order|invoice|playlist|cart)s?(id|no)?")
ROLES = {"user": USERS, "item": ITEMS, "time": TIMES, "rating": RATINGS, "event": EVENTS, "session": SESSIONS}


TITLES = ("title", "name", "itemname", "label", "headline")  # of items


@dataclass(frozen=True)
class InteractionColumns:
    """The names of the columns of a log; None for what it lacks. `others`: those that may be features."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    event: str | None = None
    session: str | None = None
    others: tuple[str, ...] = ()

    def words(self) -> str:
        """What was chosen, for a note."""
        return ", ".join(f"{role} is {getattr(self, role)!r}" for role in ROLES if getattr(self, role) is not None)


def columns_by_name(names: Sequence[str], named: Mapping[str, str | None]) -> InteractionColumns:
    """The columns by their names; `named` gives those that a user chose, by role."""
    of = columns_by_role(names, ROLES, {role: column for role, column in named.items() if column is not None})
    others = tuple(n for n in names if n not in of.values())
    if "session" in of:
        of.setdefault("user", of["session"])
    return InteractionColumns(**of, others=others)
