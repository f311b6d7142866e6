"""How the numbers and dates of a table are written, and the same values in one way: 1234.5 and 2026-01-31 10:37.

`1.234` is a thousand in one table and one and a bit in another, and `1/2/2026` is a day in January or in February. A
column decides as a whole, then the other columns of its table, and what remains is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import product

from afresh.data.tables.numbers import is_float, is_missing

NEARLY_ALL = 0.9  # of the values of a column, which say what it holds
LOOKED_AT = 5_000  # rows that say what a column holds; what they do not decide is looked for in all

# --------------------------------------------------------------------------- numbers

CURRENCY = r"[$€£¥₹]|US\$|CHF|EUR|USD|GBP|SEK|NOK|DKK|PLN|CZK|JPY|CAD|AUD|Fr\.|kr\.?|zł"
SPACES = "'’ \u00a0\u2009\u202f"  # between thousands
WRITTEN = re.compile(
    rf"(?P<open>[-−+(]?)\s*(?P<before>{CURRENCY})?\s*(?P<sign>[-−]?)"
    rf"(?P<body>\d[\d.,{SPACES}]*|[.,]\d+)(?P<power>[eE][-+]?\d{{1,3}})?\s*(?P<after>{CURRENCY}|%)?(?P<close>[-−)]?)"
)
SPACED = re.compile(rf"[1-9]\d{{0,2}}(?P<space>[{SPACES}])\d{{3}}(?:(?P=space)\d{{3}})*(?=[.,]|$)")
BODIES: tuple[tuple[str, re.Pattern[str]], ...] = (  # what a number says of the mark of its decimals
    ("whole", re.compile(r"\d+")),
    (",?", re.compile(r"[1-9]\d{0,2},\d{3}")),  # a comma is between thousands, or before decimals
    (".?", re.compile(r"[1-9]\d{0,2}\.\d{3}")),
    (",", re.compile(r"\d*,\d+|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}")),
    (".", re.compile(r"\d*\.\d*|\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}")),
)


@dataclass(frozen=True)
class WrittenNumber:
    """A number as it is written: its sign, its digits with their marks, and what it is in, as % or €.

    `decimals` is the mark before its decimals: "," or ".", with "?" where it may be between thousands, and "whole".
    """

    negative: bool
    body: str
    power: str
    unit: str
    decimals: str

    def text(self, mark: str) -> str:
        """As Python writes it, if `mark` is before decimals where the number does not say it itself."""
        mark = mark if self.decimals.endswith("?") else self.decimals
        body = self.body.replace("," if mark == "." else ".", "").replace(",", ".")
        return f"{'-' if self.negative else ''}{body}{self.power}"


def written_number(cell: str) -> WrittenNumber | None:
    """The number that a cell is, however it is written; None if it is not one, or not certainly."""
    if len(cell) > 60 or (m := WRITTEN.fullmatch(cell.strip())) is None:
        return None
    body = m["body"].strip()
    if spaced := SPACED.match(body) if m["open"] != "+" else None:  # +49 170 123 is not a number
        body = re.sub(f"[{SPACES}]", "", spaced[0]) + body[spaced.end() :]
    decimals = next((name for name, form in BODIES if form.fullmatch(body)), None)
    brackets, signs = (m["open"] == "(", m["close"] == ")"), [s for s in (m["open"], m["sign"], m["close"]) if s]
    if decimals is None or brackets[0] != brackets[1] or len(signs) > 1 + brackets[0] or (m["before"] and m["after"]):
        return None
    negative = brackets[0] or any(s in "-−" for s in signs)
    return WrittenNumber(negative, body, m["power"] or "", m["before"] or m["after"] or "", decimals)


def is_written_number(cell: str) -> bool:
    """Whether a cell is a number, in whichever form."""
    return written_number(cell) is not None


# --------------------------------------------------------------------------- dates

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar jänner janvier enero gennaio januari",
            "feb february februar février fev fév févr febrero febbraio februari",
            "mar march märz mär mrz mars marzo maart",
            "apr april avril avr abril aprile",
            "may mai mayo maggio mei",
            "jun june juni juin junio giugno",
            "jul july juli juillet juil julio luglio",
            "aug august août aout agosto augustus",
            "sep sept september septembre septiembre settembre",
            "oct october okt oktober octobre octubre ottobre",
            "nov november novembre noviembre",
            "dec december dez dezember décembre déc dic diciembre dicembre",
        ),
        1,
    )
    for name in names.split()
}
CLOCK = (
    r"(?:[T,\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?:Uhr)?\s*(?P<zone>Z|UTC|GMT|[-+]\d\d(?::?\d\d)?)?)?"
)
NUMBERED = re.compile(
    rf"(?P<first>\d{{1,4}})(?P<mark>[-/.])\s?(?P<middle>\d{{1,2}})(?P=mark)\s?(?P<third>\d{{2,4}}){CLOCK}"
)
DAY = r"(?P<day>\d{1,2})(?:\.|st|nd|rd|th)?"
NAMED = (
    re.compile(rf"(?:[^\W\d]+,?\s+)?{DAY}[-\s]\s*(?P<month>[^\W\d]{{3,10}})\.?,?[-\s]\s*(?P<year>\d{{2,4}}){CLOCK}"),
    re.compile(rf"(?:[^\W\d]+,?\s+)?(?P<month>[^\W\d]{{3,10}})\.?\s+{DAY},?\s+(?P<year>\d{{4}}){CLOCK}"),
)
DAY_FIRST, MONTH_FIRST = "day first", "month first"


@dataclass(frozen=True)
class WrittenDate:
    """A date as it is written. `order`: whether its day or its month is first; "" where it names them or begins with
    the year, and "?" where both could be."""

    numbers: tuple[int, int, int]  # year, and then month and day, or the two numbers in their order
    order: str
    mark: str
    timed: bool
    clock: tuple[int, int, int, int]  # hours, minutes, seconds, microseconds
    zone: timedelta | None

    def moment(self, order: str) -> datetime | None:
        """The moment, if `order` decides where the date does not; None if there is no such day."""
        year, a, b = self.numbers
        order = self.order if self.order in (DAY_FIRST, MONTH_FIRST) else order
        month, day = (b, a) if self.order and order == DAY_FIRST else (a, b)
        zone = None if self.zone is None else timezone(self.zone)
        try:
            return datetime(year, month, day, *self.clock, tzinfo=zone)
        except ValueError:
            return None

    def text(self, order: str) -> str | None:
        """As ISO 8601 has it, to the day if no time is given."""
        moment = self.moment(order)
        if moment is None:
            return None
        return moment.isoformat(" ") if self.timed else moment.date().isoformat()


def written_date(cell: str) -> WrittenDate | None:
    """The date that a cell is, with or without a time; None if it is not one."""
    text = cell.strip()
    if not 6 <= len(text) <= 50 or not any(c.isdigit() for c in text):
        return None
    if m := NUMBERED.fullmatch(text):
        first, second, third = int(m["first"]), int(m["middle"]), int(m["third"])
        if len(m["first"]) == 4:
            return _with_clock(m, (first, second, third), "", m["mark"]) if third <= 31 else None
        if len(m["first"]) > 2 or len(m["third"]) == 3 or max(first, second) > 31 or min(first, second) > 12:
            return None
        order = DAY_FIRST if first > 12 else MONTH_FIRST if second > 12 else "?"
        return _with_clock(m, (_year(m["third"]), first, second), order, m["mark"])
    for form in NAMED:
        if (m := form.fullmatch(text)) and (month := MONTHS.get(m["month"].lower())) is not None:
            return _with_clock(m, (_year(m["year"]), month, int(m["day"])), "", "")
    return None


def _year(text: str) -> int:
    """Of two digits one is meant from 1969 to 2068, as POSIX has it."""
    year = int(text)
    return year if len(text) > 2 else year + (2000 if year < 69 else 1900)


def _with_clock(m: re.Match[str], numbers: tuple[int, int, int], order: str, mark: str) -> WrittenDate | None:
    timed = m["hour"] is not None
    hour = int(m["hour"] or 0)
    if m["half"]:
        hour = hour % 12 + (12 if m["half"][0] in "Pp" else 0)
    part = int(((m["part"] or "") + "000000")[:6])
    zone = None
    if m["zone"] in ("Z", "UTC", "GMT"):
        zone = timedelta()
    elif m["zone"]:
        digits = m["zone"][1:].replace(":", "").ljust(4, "0")
        zone = timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) * (-1 if m["zone"][0] == "-" else 1)
        if abs(zone) >= timedelta(days=1):
            return None
    found = WrittenDate(numbers, order, mark, timed, (hour, int(m["minute"] or 0), int(m["second"] or 0), part), zone)
    return found if found.moment(DAY_FIRST) or found.moment(MONTH_FIRST) else None


def is_date(cell: str) -> bool:
    """Whether a cell is a date, in whichever form."""
    return written_date(cell) is not None


def order_of(dates: Iterable[WrittenDate]) -> str:
    """The order that most dates show which can have one order only; "?" if none does."""
    shown = Counter(d.order for d in dates if d.order in (DAY_FIRST, MONTH_FIRST))
    return max(shown, key=lambda order: shown[order], default="?")


def usual_order(mark: str) -> str:
    """What is taken if nothing says it: Americans write slashes, and the month first."""
    return MONTH_FIRST if mark == "/" else DAY_FIRST


def date_moment(value: str, order: str = "?") -> datetime | None:
    """The moment of a date in text, without a zone if it names none; None if it is not one."""
    try:
        moment = datetime.fromisoformat(value.strip()) if len(value.strip()) >= 8 else None
    except ValueError:
        moment = None
    if moment is None and (date := written_date(value)) is not None:
        moment = date.moment(usual_order(date.mark) if order == "?" else order)
    return moment


def date_seconds(value: object, order: str = "?") -> float | None:
    """Seconds since 1970 of a date in text, in UTC if it names no zone; None if it is not one."""
    if not isinstance(value, str) or (moment := date_moment(value, order)) is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# --------------------------------------------------------------------------- the forms of dates

OF_DAYS = ("%Y", "%y", "%m", "%-m", "%d", "%-d", "%Y%m%d")
OF_NAMES = ("%B", "%b", "%^b", "%A", "%a", "%p", "%#p")
OF_CLOCK = (("%H", "%-H", "%I", "%-I"), ("%M",), ("%S",), ("%f", "%L"))
WHOLE = re.compile(r"(?=.*[Yy])(?=.*[mBb])(?=.*d)[YymBbd]{3}(Ip)?")  # each part of the day once, and a half of 12 hours
ZONE = re.compile(r"(?<=[\w ])(?:Z|UTC|GMT|[-+]\d\d(?::?\d\d)?)$")


def in_form(moment: datetime, form: str) -> str:
    """A moment as text. A form is one of strftime in which "-" drops zeros, "^" writes capitals and "#" small letters
    on every system; %L stands for milliseconds."""

    def written(m: re.Match[str]) -> str:
        text = moment.strftime("%f")[:3] if m[2] == "L" else moment.strftime(f"%{m[2]}")
        return {"": text, "-": text.lstrip("0") or "0", "^": text.upper(), "#": text.lower()}[m[1]]

    return re.sub(r"%([-^#]?)(\w)", written, form)


def forms_of(text: str, moment: datetime) -> list[str]:
    """The forms in which a moment is written as this text, the likelier first."""
    zone = found[0] if moment.tzinfo and (found := ZONE.search(text)) else ""
    clock = re.search(r"\d+:", text)
    numbers = iter(OF_CLOCK)
    parts: list[list[str]] = []
    for piece in re.finditer(r"\d+|[^\W\d]+|[\W_]+", text.removesuffix(zone)):
        timed = clock is not None and piece.start() >= clock.start()
        tried = OF_NAMES if not piece[0][0].isdigit() else next(numbers, ()) if timed else OF_DAYS
        fitting = [d for d in tried if in_form(moment, d) == piece[0]]
        parts.append(fitting or ([] if piece[0].isdigit() else [piece[0]]))
    forms = [form for form in map("".join, product(*parts)) if in_form(moment, form) + zone == text]
    return [form + zone for form in forms if WHOLE.fullmatch("".join(re.findall(r"%[-^#]?([YymBbdIp])", form)))]


def shared_forms(cells: Iterable[object], order: str, known: list[str] | None) -> list[str] | None:
    """The forms in which all dates are written, of those `known` from earlier cells (None: no cell was seen)."""
    for text in (str(cell).strip() for cell in cells if not is_missing(cell)):
        moment = date_moment(text, order) if known != [] else None
        tried = [] if moment is None else forms_of(text, moment) if known is None else known
        known = [form for form in tried if moment is not None and in_form(moment, form) == text]
        if not known:
            break
    return known


def order_in(form: str) -> str:
    """The order of the day and the month in a form."""
    return DAY_FIRST if re.search("%-?d.*%-?m", form) else MONTH_FIRST


def rewritten(cell: str, form: str) -> str:
    """A date of ISO 8601 in a form, and in the zone that the form names."""
    moment = datetime.fromisoformat(cell)
    if moment.tzinfo and (zone := ZONE.search(form)):
        known = datetime.fromisoformat(f"2000-01-01T00:00{zone[0].replace('UTC', 'Z').replace('GMT', 'Z')}")
        moment = moment.astimezone(known.tzinfo)
    return in_form(moment, form)


# --------------------------------------------------------------------------- columns


@dataclass
class ColumnEvidence:
    """What the values of a column say of how they are written."""

    values: int = 0
    numbers: Counter[str] = field(default_factory=Counter)  # by what they say of decimals
    units: Counter[str] = field(default_factory=Counter)
    dates: Counter[str] = field(default_factory=Counter)  # by their order
    marks: Counter[str] = field(default_factory=Counter)  # of dates that may have either order
    odd: bool = False  # whether a number or a date is not as Python or ISO has it

    def add(self, cells: Iterable[str]) -> None:
        for cell in cells:
            if is_missing(cell):
                continue
            self.values += 1
            if (number := written_number(cell)) is not None:
                self.numbers[number.decimals] += 1
                self.units[number.unit] += 1
                self.odd |= not is_float(cell)
            elif (date := written_date(cell)) is not None:
                self.dates[date.order] += 1
                self.marks[date.mark if date.order == "?" else ""] += 1
                self.odd = self.odd or not _is_iso(cell)

    @property
    def are_numbers(self) -> bool:
        """Whether nearly all are numbers, in one unit at most, which none lacks if it is %."""
        units = {u for u in self.units if u}
        total = self.numbers.total()
        one = len(units) <= 1 and ("%" not in units or self.units["%"] == total)
        return total > 0 and total >= NEARLY_ALL * self.values and one

    @property
    def are_dates(self) -> bool:
        return self.dates.total() > 0 and self.dates.total() >= NEARLY_ALL * self.values

    @property
    def decimals(self) -> str:
        """The mark before decimals that most numbers show; "" if none does."""
        comma, point = self.numbers[","], self.numbers["."]
        return "" if comma == point == 0 else "," if comma > point else "."

    @property
    def order(self) -> str:
        day, month = self.dates[DAY_FIRST], self.dates[MONTH_FIRST]
        return "?" if day == month == 0 else DAY_FIRST if day >= month else MONTH_FIRST

    @property
    def undecided(self) -> bool:
        """Whether another value could say what these do not."""
        if self.are_dates:
            return self.dates["?"] > 0 and self.order == "?" and "." not in self.marks
        return self.are_numbers and not self.decimals and self.numbers[",?"] + self.numbers[".?"] > 0


def _is_iso(cell: str) -> bool:
    try:
        datetime.fromisoformat(cell.strip())
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Spelling:
    """How a table is written: of columns of numbers the mark before decimals, of columns of dates their order. Columns
    that are as Python and ISO have them are in neither."""

    numbers: Mapping[str, str] = field(default_factory=dict)
    dates: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        return frozenset((*self.numbers, *self.dates))

    def reader(self, column: str) -> Callable[[str], str]:
        """What a cell of the column is in one way; a cell that is neither a number nor a date stays as it is."""
        if column in self.numbers:
            mark = self.numbers[column]
            return lambda cell: cell if (n := written_number(cell)) is None else n.text(mark)
        order = self.dates[column]
        return lambda cell: cell if (d := written_date(cell)) is None else d.text(order) or cell


def spelling_of(columns: Mapping[str, ColumnEvidence], separator: str = "") -> Spelling:
    """How a table is written, by what its columns say. `separator`: of its fields, where semicolons stand for
    programs that write decimal commas."""
    numeric = {name: e for name, e in columns.items() if e.are_numbers}
    dated = {name: e for name, e in columns.items() if e.are_dates and not e.are_numbers}
    marks = Counter(e.decimals for e in numeric.values() if e.decimals)
    usual_mark = "," if marks[","] > marks["."] or (not marks and separator == ";") else "."
    numbers, dates, notes = {}, {}, []
    for name, e in numeric.items():
        unclear = e.numbers[",?"] + e.numbers[".?"] > 0 and not e.decimals
        mark = e.decimals or usual_mark
        if e.odd or (e.numbers[".?"] and mark == ","):
            numbers[name] = mark
        if unclear and name in numbers:
            example = "1,234" if e.numbers[",?"] else "1.234"
            what = "1234" if (mark == ".") == (example == "1,234") else "1.234"
            notes.append(f"numbers of {name!r} such as {example} are read as {what}: no other shows which is meant")
        unit = next((u for u in e.units if u), "")
        if unit and name in numbers:
            notes.append(f"numbers of {name!r} are taken in {unit}")
        if e.numbers[","] and e.numbers["."]:
            notes.append(f"{name!r} has decimal commas ({e.numbers[',']:,}) and points ({e.numbers['.']:,})")
    if commas := [n for n, mark in numbers.items() if mark == "," and numeric[n].numbers[","]]:
        notes.append(f"decimal commas in {', '.join(map(repr, commas))}")
    shown = Counter(e.order for e in dated.values() if e.order != "?")
    for name, e in dated.items():
        order = e.order
        if order == "?":
            order = max(shown, key=lambda o: shown[o], default="?")
        if order == "?" and ("." in e.marks or usual_mark == ","):
            order = DAY_FIRST
        if order == "?" and e.dates["?"]:
            order = usual_order(next(mark for mark in e.marks if mark))
            notes.append(
                f"dates of {name!r} are read {order}, and could be meant otherwise: no day is above 12. Write them as "
                "2026-01-31 if this is wrong"
            )
        if e.dates[DAY_FIRST] and e.dates[MONTH_FIRST]:
            notes.append(
                f"dates of {name!r} have their day first in {e.dates[DAY_FIRST]:,} rows and their month first in "
                f"{e.dates[MONTH_FIRST]:,}: the others are read {order}"
            )
        if e.odd:
            dates[name] = order
    return Spelling(numbers, dates, tuple(notes))


def spelling_of_cells(columns: Mapping[str, Sequence[object]], separator: str = "") -> Spelling:
    """How a table is written, by its cells: the first rows, and of columns that they leave undecided all."""
    evidence = {name: ColumnEvidence() for name in columns}
    for name, cells in columns.items():
        evidence[name].add(c for c in cells[:LOOKED_AT] if isinstance(c, str))
        if evidence[name].undecided:
            evidence[name].add(c for c in cells[LOOKED_AT:] if isinstance(c, str))
    return spelling_of(evidence, separator)
