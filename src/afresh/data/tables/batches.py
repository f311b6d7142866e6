"""Tables a batch of rows at a time, so that ten million events need not be held as objects of Python."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

from afresh.core import Refused, UserError
from afresh.core.data import about
from afresh.data.files import MB, DataFile, FileError, open_plain, read_bytes, suffix_of, walk
from afresh.data.limits import parsing
from afresh.data.tables import DATA_BASES, SPREADSHEETS, TABLES, rows
from afresh.data.tables.delimited import Numbered, Row, Unusable, delimited_batches
from afresh.data.tables.layout import UTF8, NamesOf, too_wide
from afresh.data.tables.parquet import MOST_COLUMNS, stream_batches
from afresh.data.tables.spelling import LOOKED_AT, ColumnEvidence, Spelling, shared_forms, spelling_of
from afresh.data.tables.spreadsheet import SEPARATOR, text_of_sheet
from afresh.data.tables.sql import read_rows
from afresh.data.tables.totals import TOTALS, WORDS, lines_of_totals

SUFFIXES = TABLES | {".inter", ".dat", ".data", ".txt"}  # of those that are read as tables
ROWS = 65_536  # of a batch
AT_ONCE = 64 * MB  # of a batch of Parquet
TITLED = 3  # columns in which a line of totals may say what it is
UNDECIDED = 20  # batches in which it is looked for how numbers and dates are written
MOST_MB = 1024  # of what is decoded of Parquet at once


def batches(
    file: DataFile,
    unusable: Unusable,
    query: str | None = None,
    names_of: NamesOf = lambda first: None,
    forms: dict[str, list[str] | None] | None = None,
) -> Iterator[Any]:
    """Batches of rows (pyarrow.RecordBatch) of a file. Texts keep their form, so that an id `007` stays one, but for
    numbers and dates, which are written in one way (afresh.data.tables.spelling).

    `query` is the table or the query of a data base. `names_of`: the names of the columns of a file that has no header
    but numbers, by its first row. Rows that cannot be used, lines of totals and notes are added to `unusable`. `forms`
    receives, for each column of texts, the forms in which all its dates are written. Raises FileError if the file
    cannot be read.
    """
    read = _as_written(file, unusable, query, names_of)
    first = next(read, None)
    if first is None:
        return
    spelling = _spelling(first, lambda: _as_written(file, Unusable(), query, names_of), unusable.separator)
    unusable.notes += spelling.notes
    seen = 0
    for batch, after in pairwise(chain([first], read, [None])):
        batch = _without_totals(batch, after is None, unusable, seen)
        if forms is not None:
            for name in (n for n in _columns_of_texts(batch) if forms.get(n) != []):
                cells = batch.column(name).unique().to_pylist()
                forms[name] = shared_forms(cells, spelling.dates.get(name, "?"), forms.get(name))
        yield _spelled(batch, spelling)
        seen += batch.num_rows


def read_tables(
    path: Path,
    add: Callable[[DataFile, Iterator[Any], Unusable], None],
    query: str | None = None,
    names_of: NamesOf = lambda first: None,
    suffixes: Collection[str] = TABLES,
    forms: dict[str, list[str] | None] | None = None,
) -> tuple[list[Refused], list[str], Counter[str]]:
    """Give `add` the batches of each table at a path. Returns what was refused, notes on the tables, and how many rows
    were left out for each reason."""
    files, refused = walk(path)
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    for file in files:
        if suffix_of(file.name) not in suffixes:
            refused.append(Refused(file.name, f"not a table ({file.suffix or 'no suffix'})"))
            continue
        unusable = Unusable()
        try:
            with parsing("table"):
                add(file, batches(file, unusable, query, names_of, forms), unusable)
        except FileError as error:
            refused.append(Refused(file.name, str(error), damaged=True))
        refused += unusable.refused(file.name)
        notes += [about(file.name, note) for note in unusable.notes]
        left_out.update({reason: count for reason, (count, _) in unusable.reasons.items()})
    return refused, notes, left_out


def _as_written(file: DataFile, unusable: Unusable, query: str | None, names_of: NamesOf) -> Iterator[Any]:
    """The batches of `batches` as the file has them."""
    suffix = suffix_of(file.path.name)
    if suffix == ".parquet":
        read = _parquet(file)
    elif suffix in DATA_BASES:
        read = _sqlite(file, query)
    elif suffix in (".jsonl", ".ndjson", ".json"):
        read = _json(file, suffix, unusable)
    elif suffix in SPREADSHEETS:
        text = text_of_sheet(read_bytes(file, MOST_MB), MOST_MB, unusable.notes).encode("utf-8", "replace")
        read = delimited_batches(lambda: io.BytesIO(text), unusable, names_of, SEPARATOR)
    else:
        read = delimited_batches(lambda: open_plain(file), unusable, names_of)
    with parsing("table"):
        for batch in read:
            if len(set(batch.schema.names)) != len(batch.schema.names):
                raise FileError("two columns have the same name: give one of them another")
            yield batch


def _spelling(first: Any, again: Callable[[], Iterator[Any]], separator: str) -> Spelling:
    """How numbers and dates are written, by the first rows, and for columns that they leave undecided by the next."""
    evidence = {name: ColumnEvidence() for name in _columns_of_texts(first)}
    for name, said in evidence.items():
        said.add(v for v in first.column(name).slice(0, LOOKED_AT).to_pylist() if v is not None)
    if any(said.undecided for said in evidence.values()):
        for number, batch in enumerate(islice(again(), UNDECIDED)):
            undecided = [n for n, said in evidence.items() if said.undecided and n in batch.schema.names]
            for name in undecided:
                values = batch.column(name).slice(0 if number else LOOKED_AT).unique().to_pylist()
                evidence[name].add(v for v in values if isinstance(v, str))
            if not undecided:
                break
    return spelling_of(evidence, separator)


def _columns_of_texts(batch: Any) -> list[str]:
    import pyarrow

    return [f.name for f in batch.schema if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)]


def _spelled(batch: Any, spelling: Spelling) -> Any:
    import pyarrow

    texts = spelling.columns.intersection(_columns_of_texts(batch))
    if not texts:
        return batch
    columns = []
    for name in batch.schema.names:
        column = batch.column(name)
        if name in texts:
            encoded, read = column.dictionary_encode(), spelling.reader(name)
            values = [v if v is None else read(v) for v in encoded.dictionary.to_pylist()]
            column = pyarrow.array(values, pyarrow.string()).take(encoded.indices)
        columns.append(column)
    return pyarrow.record_batch(columns, batch.schema.names)


def _without_totals(batch: Any, ended: bool, unusable: Unusable, before: int) -> Any:
    """The batch without lines of totals, which are added to `unusable`; `before` it are so many rows."""
    import numpy as np
    import pyarrow
    from pyarrow import compute

    texts = _columns_of_texts(batch)
    named = (compute.match_substring_regex(batch.column(n), f"^\\s*({WORDS.pattern})\\s*:?\\s*$", ignore_case=True)
             for n in texts[:TITLED])  # fmt: skip
    if len(texts) < len(batch.schema.names) or not any(compute.any(one).as_py() for one in named):
        return batch
    table = [list(row.values()) for row in batch.to_pylist()]
    totals = lines_of_totals(table, ended)
    for i in totals:
        unusable.add(TOTALS, before + i + 1)
    keep = np.ones(batch.num_rows, dtype=bool)
    keep[totals] = False
    return batch.filter(pyarrow.array(keep))


def most_frequent_value(
    data: Path | None, column_of: Callable[[Any], str | None], read: Callable[[DataFile], Iterator[Any]]
) -> str | None:
    """The value that occurs most in the first rows of the first table whose batches have a column of that kind, for a
    command that can be tried; None if none has, or if the data is not to be read."""
    try:
        for file in walk(data)[0] if data is not None else ():
            first = next(read(file), None) if suffix_of(file.name) in SUFFIXES else None
            name = None if first is None else column_of(first)
            if first is not None and name is not None:
                values = [str(v).strip() for v in first.column(name).slice(0, LOOKED_AT).to_pylist() if v is not None]
                names = Counter(v.removesuffix(".0") if v.removesuffix(".0").isdigit() else v for v in values if v)
                return names.most_common(1)[0][0] if names else None
    except (UserError, FileError, OSError, EOFError, LookupError, TypeError, ValueError):
        pass
    return None


def _parquet(file: DataFile) -> Iterator[Any]:
    import pyarrow

    held: list[Any] = []
    for piece in chain(stream_batches(file, MOST_MB), [None]):
        count = sum(part.num_rows for part in held)
        if held and (piece is None or count + piece.num_rows > ROWS or sum(part.nbytes for part in held) > AT_ONCE):
            yield from pyarrow.Table.from_batches(held).combine_chunks().to_batches()
            held = []
        held.append(piece)


def _sqlite(file: DataFile, query: str | None) -> Iterator[Any]:
    """The rows of a query, or of the only table."""
    import pyarrow

    for names, read in read_rows(file, query, ROWS):
        yield pyarrow.record_batch([_column([r[i] for r in read]) for i in range(len(names))], names)


def _json(file: DataFile, suffix: str, unusable: Unusable) -> Iterator[Any]:
    """A .json file may be a list of rows as well as lines of JSON, by its first line."""
    if suffix == ".json" and isinstance(next((row for _, row in _json_lines(file)), ""), str):
        table = rows.read_table(suffix, read_bytes(file, MOST_MB), MOST_MB)
        numbered: Iterable[Numbered] = chain(table.rows, table.bad)
    else:
        numbered = _json_lines(file)
    held: list[Row] = []
    for number, row in numbered:
        if isinstance(row, str):
            unusable.add(row.split(":")[0], number)
        else:
            held.append(row)
        if len(held) == ROWS:
            yield _of_rows(held)
            held = []
    if held:
        yield _of_rows(held)


def _json_lines(file: DataFile) -> Iterator[Numbered]:
    with open_plain(file) as stream, io.TextIOWrapper(stream, UTF8, "replace", newline="\n") as lines:
        yield from rows.json_rows(rows.bounded_lines(lines, rows.LONGEST))


def _of_rows(held: Sequence[Row]) -> Any:
    import pyarrow

    names = list(dict.fromkeys(name for row in held for name in row))
    if len(names) > MOST_COLUMNS:
        raise FileError(too_wide(len(names)))
    return pyarrow.record_batch([_column([row.get(n) for row in held]) for n in names], names)


def _column(values: list[Any]) -> Any:
    """Values of one type as such, mixed ones as texts."""
    import pyarrow

    kinds = {type(v) for v in values if v is not None}
    if kinds == {list}:
        return pyarrow.array(
            [None if v is None else list(map(str, v)) for v in values], pyarrow.list_(pyarrow.string())
        )
    if len(kinds) == 1 and kinds <= {int, float, str, bool}:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, OverflowError):
            pass
    return pyarrow.array([None if v is None else v if isinstance(v, str) else json.dumps(v, default=str)
                          for v in values], pyarrow.string())  # fmt: skip
