"""Which columns of a table say who did what when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
PATTERNS = {"user": USERS, "item": ITEMS, "time": TIMES, "rating": RATINGS, "event": EVENTS, "session": SESSIONS}


@dataclass(frozen=True)
class Columns:
    """The names of the columns of a log; None for what it lacks. `others`: those that may be features."""

    user: str | None
    item: str | None
    time: str | None = None
    rating: str | None = None
    event: str | None = None
    session: str | None = None
    others: tuple[str, ...] = ()

    def words(self) -> str:
        """What was chosen, for a note."""
        roles = ("user", "item", "time", "rating", "event", "session")
        return ", ".join(f"{role} is {getattr(self, role)!r}" for role in roles if getattr(self, role) is not None)


def plain(name: str) -> str:
    """A column's name without what writers of logs vary: case, spaces, underlines, and the type that follows a colon in
    the files of RecBole (`user_id:token`)."""
    return re.sub(r"[\W_]", "", name.lower().split(":")[0])


def choose(names: Sequence[str], named: Mapping[str, str | None]) -> Columns:
    """The columns by their names; `named` gives those that a user chose, by role."""
    found = dict(named)
    taken = {c for c in found.values() if c is not None}
    for role, pattern in PATTERNS.items():
        if found.get(role) is None:
            fits = [n for n in names if n not in taken and pattern.fullmatch(plain(n))]
            # of `user_id` and `user_name` the first is meant
            best = sorted(fits, key=lambda n: not plain(n).endswith("id"))
            found[role] = best[0] if best else None
            taken.update(best[:1])
    if found["user"] is None and found["session"] is not None:
        found["user"] = found["session"]
    return Columns(**found, others=tuple(n for n in names if n not in taken))


def is_log(names: Sequence[str]) -> bool:
    """Whether columns of these names are those of a log: it says who, and which item."""
    columns = choose(names, {})
    return columns.user is not None and columns.item is not None
