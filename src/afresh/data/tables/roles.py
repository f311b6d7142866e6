"""Which column of a table is what: by names that say so, and by tests of values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from difflib import get_close_matches
from typing import Any

from afresh.core import UserError
from afresh.data.tables.numbers import as_number, is_missing
from afresh.data.tables.spelling import NEARLY_ALL, date_seconds
from afresh.data.tables.times import DAY, clock_time

# The names of a role's columns as plain names, the likeliest first, or a pattern of these, of which one that ends in
# "id" is likelier than another.
Names = Sequence[str] | re.Pattern[str]
TEXT_NAMES = ("text", "content", "body", "document", "article", "story", "sentence", "review", "message", "poem")
TITLE_NAMES = (  # of columns that name items for people, the likeliest first
    *("title", "name", "itemname", "productname", "lineitemname", "label", "headline", "titel", "titre", "bezeichnung"),
    *("artikelbezeichnung", "artikelname", "produktname", "designation", "désignation", "libellé", "description"),
)
TIME_NAMES = re.compile(  # plain ones that say when, whatever their numbers are
    r"(time|timestamp|date|datetime|datetimeutc|when|ts|createdat|eventtime|unixreviewtime|reviewtime|day|playedat"
    r"|answeredat|submittedat|starttime|timecreated|submitted|endtime|datum|zeit|zeitpunkt|zeitstempel|horodatage|fecha)"
)
COUNTED_TIMES = re.compile(
    r".*(year|jahr|jaar|ann[eé]e|anno|año|season|saison|month|monat|week|woche|hour|minute)|step|t"
)
TIME_PARTS = re.compile(r"date|time|datum|zeit|fecha|stamp|(ed|en)(at|on)$|(gegeben|gekauft|gelöst|stellt)am$|^am$")
EVENT_PARTS = re.compile(
    r"order|purchas|bought|paid|event|played|visit|creat|loan|borrow|invoice|transact|answer|submit|bestell|kauf"
    r"|beleg|buchung|ausleih|rechnung|gegeben|command|achat|compra|pedido"
)
CLOCK_NAMES = re.compile(r"time|clock|hour|zeit|uhr|heure|hora|tijd|ora$")  # of columns of times of day
LASTS = re.compile(
    r"dura|dauer|elapsed|spent|laufzeit|spielzeit|playtime|length"
)  # names of columns of how long it was
NOT_THEN = re.compile(r"birth|geburt|naissance|ship|deliver|liefer|return|rück|due|fällig|end|updat|modif|expir|releas")
LEAST_STAMP = 1e8  # of a clock that counts from 1970: 1973 in seconds
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?([T ]\d{1,2}:\d\d.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}([T ]\d{1,2}:\d\d.*)?"
    r"|\d{1,2}:\d\d(:\d\d)?|(\d{1,2} )?[A-Z][a-z]{2,8}\.? (\d{1,2},? )?\d{4}"
)
WORDS = 5  # of a value on average, from which a column holds sentences


def lowered(name: str) -> str:
    """A column's name without case and outer spaces."""
    return name.lower().strip()


def plain_name(name: str) -> str:
    """A column's name without what writers of tables vary: case, spaces, underlines, and the type that follows a colon
    in the files of RecBole (`user_id:token`)."""
    return re.sub(r"[\W_]", "", name.lower().split(":")[0])


def counts_time(name: str) -> bool:
    """Whether a column of this plain name counts years or other steps, if its numbers rise."""
    return COUNTED_TIMES.fullmatch(name) is not None


def shown(column: str) -> str:
    """A column's name for messages, also of one without a name."""
    return column if column.strip() else "the column without a name"


def columns_by_role(
    columns: Sequence[str],
    roles: Mapping[str, Names],
    given: Mapping[str, str] | None = None,
    *,
    plain: Callable[[str], str] = plain_name,
    suits: Callable[[str, str], bool] = lambda role, column: True,
    events: Callable[[str], Sequence[Any]] | None = None,
) -> dict[str, str]:
    """The column of each role: the one that is given, or the likeliest by its name that has no role yet.

    `plain` makes the names that are compared, and `suits` (role, column) tests the values of a column. `events` gives
    some values of a column of a log of events, which may have two roles more: `time`, and `clock` for the time of day
    if that has the day only. Roles without a column are left out.
    """
    of = dict(given or {})
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(plain(column), []).append(column)
    for role, names in roles.items():
        if role in of:
            continue
        if isinstance(names, re.Pattern):
            names = sorted(filter(names.fullmatch, by_name), key=_rank)
        likely = (c for name in names for c in by_name.get(name, ()) if c not in of.values())
        best = next((c for c in likely if suits(role, c)), None)
        if best is not None:
            of[role] = best
    if events is not None:
        if "time" not in of and (when := time_column([c for c in columns if c not in of.values()], events)):
            of["time"] = when
        left = [c for c in columns if c not in of.values()]
        if "time" in of and "clock" not in of and (clock := clock_column(left, of["time"], events)):
            of["clock"] = clock
    return of


def role_words(of: Mapping[str, str], between: str) -> str:
    """Which column was taken for what, for a note."""
    words = {role: repr(column) for role, column in of.items()}
    if "time" in words and "clock" in words:
        words["time"] += f" and {words.pop('clock')} together"
    return between.join(f"{role} is {column}" for role, column in words.items())


def _rank(name: str) -> int:
    """How unlikely a plain name is among those of one role: an id is one for certain, a title may have several."""
    endings = (("id",), ("sku", "code", "nr", "no", "number", "nummer", "numéro"), ("",))
    return 3 if name in TITLE_NAMES else next(i for i, ends in enumerate(endings) if name.endswith(ends))


def time_column(columns: Sequence[str], values_of: Callable[[str], Sequence[Any]]) -> str | None:
    """The column that says when: by its name, if its values are times, or the only one of dates. `values_of` gives some
    values of a column. Of several, that of the event comes before those of what precedes or follows it."""
    named = [(rank, c) for c in columns if (rank := _time_rank(plain_name(c))) is not None]
    for rank, column in sorted(named, key=lambda pair: pair[0]):
        if are_times(values_of(column), counted=rank == 0):
            return column
    dated = [c for c in columns if are_times(values_of(c), counted=False, numbers=False)]
    return dated[0] if len(dated) == 1 else None


def _time_rank(name: str) -> int | None:
    if TIME_NAMES.fullmatch(name):
        return 0
    if not TIME_PARTS.search(name):
        return None
    return 3 if NOT_THEN.search(name) else 1 if EVENT_PARTS.search(name) else 2


def clock_column(columns: Sequence[str], when: str, values_of: Callable[[str], Sequence[Any]]) -> str | None:
    """The column of the times of day that belong to the days in the column `when`; None if that has times of its own,
    or if none exists. Of several, that of the event comes before those of what precedes or follows it."""
    days = [v for v in values_of(when) if not is_missing(v)]
    if share(days, _is_day) < NEARLY_ALL:
        return None
    named = [c for c in columns if c != when and CLOCK_NAMES.search(plain_name(c)) and not LASTS.search(plain_name(c))]
    times = {c: [clock_time(v) for v in values_of(c) if not is_missing(v)] for c in named}
    clocks = [c for c in named if share(times[c], lambda time: time is not None) >= NEARLY_ALL]
    return min(clocks, key=lambda c: 2 if (rank := _time_rank(plain_name(c))) is None else rank, default=None)


def _is_day(value: Any) -> bool:
    if isinstance(value, datetime):
        return value.time() == time()
    seconds = date_seconds(value)
    return isinstance(value, date) or (seconds is not None and seconds % DAY == 0)


def are_times(values: Sequence[Any], counted: bool, numbers: bool = True) -> bool:
    """Whether most values are dates, or `numbers` of a clock, which with `counted` may begin anywhere."""
    known = [v for v in values if not is_missing(v)]

    def is_time(value: Any) -> bool:
        if isinstance(value, date):
            return True
        number = as_number(value)
        if number is not None:
            return numbers and (counted or number >= LEAST_STAMP)
        return date_seconds(value) is not None

    return bool(known) and 2 * sum(map(is_time, known)) > len(known)


def check_given(columns: Sequence[str], given: Mapping[str, str], prefix: str = "data.") -> None:
    """Raises UserError if a column that was given for a role does not exist. `prefix`: of the options' names."""
    for role, column in given.items():
        if column not in columns:
            raise UserError(
                f"No column {column!r} for `{prefix}{role}`. The columns are: {', '.join(columns) or 'none'}.",
                "unknown_column",
            )


def check_column(table: object, columns: Sequence[str], wanted: str) -> None:
    """Raises UserError, with the name that is most like it, if a table has no column of this name."""
    if wanted not in columns:
        alike = [c for c in columns if lowered(c) == lowered(wanted)]
        near = get_close_matches(wanted, columns, n=1, cutoff=0.5) or alike
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{table} has no column {wanted!r}.{hint} Its columns: {', '.join(columns[:20])}.", "no_column")


# --------------------------------------------------------------------------- tests of values


def share(values: Sequence[Any], holds: Callable[[Any], Any]) -> float:
    """The share of the values for which something holds; 0 without values."""
    return sum(bool(holds(v)) for v in values) / len(values) if values else 0.0


def are_dates(values: Sequence[str]) -> bool:
    """Whether nearly all values are dates or times of day in text."""
    return share(values, DATE.fullmatch) >= 0.9


def are_labels(values: Sequence[str]) -> bool:
    """Whether a few short values recur."""
    return 4 * len(set(values)) <= len(values) and max(map(len, values), default=0) <= 40


def is_prose(name: str, values: Sequence[str]) -> bool:
    """Whether a column holds sentences, or is named as if it did."""
    words = sum(len(v.split()) for v in values) / max(1, len(values))
    return lowered(name) in TEXT_NAMES or (words >= WORDS and not are_dates(values))
