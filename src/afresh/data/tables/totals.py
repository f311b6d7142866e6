"""Lines of a table that sum its rows up, as programs write them below: sums and means are no rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from afresh.data.tables.spelling import is_written_number

TOTALS = "a line of totals, and no row"  # the reason
WORDS = re.compile(
    r"((grand|sub|order) ?)?-?totals?|((zwischen|gesamt|end|teil)-?)?summen?|gesamt(betrag|ergebnis)?|insgesamt|sums?"
    r"|(sous-)?totaux|total g[ée]n[ée]ral|somme|totaal|totale|suma|average|avg|mean|median|mittelwert|durchschnitt"
    r"|moyenne|m[ée]diane|media|promedio|std\.? ?dev\.?|minimum|maximum",
    re.IGNORECASE,
)
USUALLY = 0.95  # of the rows have a value in a column that every row should have


def lines_of_totals(rows: Sequence[Sequence[str | None]], ended: bool = True) -> list[int]:
    """Which of the rows are totals: a word for one, and numbers, in a row without what every other has, or in the last.
    `ended`: whether the table ends with these rows."""
    likely = [i for i, row in enumerate(rows) if _may_be_totals(row)]
    if not likely or len(rows) < 3:
        return []
    filled = [sum(bool(row[i]) for row in rows) for i in range(len(rows[0]))]
    usual = [i for i, n in enumerate(filled) if n >= USUALLY * (len(rows) - len(likely))]
    last = {i for i in likely if ended and set(range(i, len(rows))) <= set(likely)}
    return [i for i in likely if i in last or any(not rows[i][j] for j in usual)]


def _may_be_totals(row: Sequence[str | None]) -> bool:
    if len(row) < 3:
        return False
    cells = [c.strip() for c in row if c and c.strip()]
    named = len(cells) > 1 and WORDS.fullmatch(cells[0].rstrip(" :")) is not None
    return named and all(map(is_written_number, cells[1:]))
