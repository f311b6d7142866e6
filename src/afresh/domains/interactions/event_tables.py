"""The tables of a log of events: which files they are, and their rows, an event each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from afresh.data.files import DataFile
from afresh.data.tables.numbers import is_number
from afresh.data.tables.roles import TEXT_NAMES, TITLE_NAMES, is_prose, lowered, plain_name
from afresh.data.tables.rows import RowTable
from afresh.data.tables.times import UNITS
from afresh.domains.interactions.columns import LOOKED_AT, USERS, columns_by_name

SEQUENCES = frozenset({"items", "history", "sequence", "itemids", "itemsequence"})  # columns of lists of items
VARYING = 0.05  # share of the rows of items seen before in which a column that describes them may say something else
ONE = dict.fromkeys(SEQUENCES, "item") | {"times": "time", "timestamps": "time", "ratings": "rating"}
HEADERLESS = {2: ("user", "item"), 3: ("user", "item", "rating"), 4: ("user", "item", "rating", "time")}


def events_of(file: DataFile, read: Iterable[Any]) -> Iterator[Any]:
    """The batches (pyarrow.RecordBatch) of a file with an event in each row, also where a row has a list of them."""
    for number, batch in enumerate(read):
        yield event_a_row(batch, f"{Path(file.name).stem} {number}" if number else Path(file.name).stem)


def columns_of_head(table: RowTable) -> dict[str, str] | None:
    """The columns of a log of events by its first rows: it says who, and which item, and has no column of sentences
    but titles. None if it is none."""
    names: Sequence[str] = [*table.columns, *table.skipped]
    if all(name and is_number(name) for name in names):
        names = headerless_names(names) or names
    sequences = {n for n in names if plain_name(n) in SEQUENCES}
    if any(n in table.skipped or any(isinstance(row.get(n), list) for _, row in table.rows) for n in sequences):
        names = [ONE.get(plain_name(n), n) for n in names]
        names += [] if any(USERS.fullmatch(plain_name(n)) for n in names) else ["user"]
    of = columns_by_name(names, {}, lambda name: [row.get(name) for _, row in table.rows[:LOOKED_AT]])
    if "user" not in of or "item" not in of:
        return None
    words = [n for n in table.texts if n != of["user"] and plain_name(n) not in TITLE_NAMES]
    if any(is_prose(n, table.texts_of(n)) and not _says_what_items_are(table, of["item"], n) for n in words):
        return None
    if plain_name(of["item"]) in TITLE_NAMES and not _recurs(table.texts_of(of["user"])):
        return None  # a table of people, who have titles too
    return of


def _says_what_items_are(table: RowTable, item: str, column: str) -> bool:
    """Whether a column of sentences names or describes items: it says the same of an item wherever that is chosen."""
    if lowered(column) in TEXT_NAMES:
        return False
    if column == item:
        return _recurs(table.texts_of(column))
    first: dict[Any, Any] = {}
    same = [first.setdefault(row.get(item), row.get(column)) == row.get(column) for _, row in table.rows]
    again = len(same) - len(first)
    return again > 0 and len(same) - sum(same) <= VARYING * again


def _recurs(values: Sequence[str]) -> bool:
    return len(set(values)) < len(values)


def headerless_names(first: Sequence[str]) -> Sequence[str] | None:
    """The names of columns of numbers without a header, as MovieLens has them: who, what, how good, when."""
    names = list(HEADERLESS.get(len(first), ()))
    if len(first) == 3 and float(first[2]) >= UNITS[0][1]:
        names[2] = "time"
    return names or None


def event_a_row(batch: Any, name: str) -> Any:
    """A batch with a list of items in each row as one with an item in each row. Rows that do not say whose list it is
    are those of one user each, who is given the name."""
    import pyarrow
    from pyarrow import compute

    lists = [
        n for n in batch.schema.names if plain_name(n) in SEQUENCES and pyarrow.types.is_list(batch.column(n).type)
    ]
    if not lists:
        return batch
    row = compute.list_parent_indices(batch.column(lists[0]))
    columns = {}
    for n in batch.schema.names:
        column = batch.column(n)
        inner = pyarrow.types.is_list(column.type)
        same = inner and compute.list_parent_indices(column).equals(row)
        columns[ONE.get(plain_name(n), n)] = compute.list_flatten(column) if same else column.take(row)
    if not any(USERS.fullmatch(plain_name(n)) for n in columns):
        users = [f"{name} {i}" if batch.num_rows > 1 else name for i in range(batch.num_rows)]
        columns["user"] = pyarrow.array(users).take(row)
    return pyarrow.record_batch(list(columns.values()), list(columns))
