"""Data bases of SQLite, read as one table or one SELECT; the query, the views and the file need not be trusted.

Whether a statement only reads is decided by SQLite itself: its authorizer is asked about every part of a statement, of
views and of what they call, and permits what is listed here. A connection in `mode=ro` alone still writes by VACUUM
INTO and by ATTACH. What a statement may take is bounded by a Meter, which a progress handler asks inside of SQLite.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from afresh.data.files import MB, DataFile, FileError
from afresh.data.limits import LimitExceeded, Limits, Meter

# Functions that only compute a value from their arguments, and the same one each time. Not among them are those that
# load or write files, that make long values of nothing, and `random`, after which no run finds its data again.
FUNCTIONS = frozenset(
    (
        *("abs", "avg", "ceil", "ceiling", "char", "coalesce", "concat", "concat_ws", "count", "cume_dist", "date"),
        *("datetime", "dense_rank", "exp", "first_value", "floor", "format", "glob", "group_concat", "hex", "if"),
        *("ifnull", "iif", "instr", "json", "json_array", "json_array_length", "json_extract"),
        *("json_group_array", "json_group_object", "json_object", "json_quote", "json_type", "json_valid"),
        *("julianday", "lag", "last_value", "lead", "length", "like", "likelihood", "likely", "ln", "log", "log10"),
        *("log2", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "octet_length"),
        *("percent_rank", "pow", "power", "printf", "quote", "rank", "replace", "round", "row_number", "rtrim", "sign"),
        *("sqrt", "strftime", "string_agg", "substr", "substring", "subtype", "sum", "time", "timediff", "total"),
        *("trim", "trunc", "typeof", "unhex", "unicode", "unixepoch", "unlikely", "upper", "->", "->>"),
    )
)
READS = frozenset((sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE))
SELECT = re.compile(r"(select|with)\b", re.IGNORECASE)
# Words that stand before a parenthesis without being a function.
BEFORE_PARENTHESES = frozenset(
    (
        *("all", "and", "any", "as", "between", "by", "case", "cast", "distinct", "else", "except", "exists", "filter"),
        *("from", "having", "in", "intersect", "join", "lateral", "like", "not", "on", "or", "over", "select", "some"),
        *("then", "union", "using", "values", "when", "where", "with", "within"),
    )
)
NAME = re.compile(r'"[^"\\]*"|[^\W\d]\w*')
TOKEN = re.compile(rf"""'[^'\\]*'|{NAME.pattern}|[\d.,()*/%+<>=!|?&^~\s:-]""")
SAFELY = (  # what a damaged or hostile file is read with
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
)
LONGEST = MB  # bytes of a value and of a row of a log
LONGEST_QUERY, LONGEST_PATTERN = 100_000, 1_000  # bytes
STEPS = 10_000  # of SQLite's machine from one look at the clock to the next
AT_ONCE = 256  # rows that are asked for
MOST_TABLES = 10_000
# A row of a table takes several bytes of its file, so that only views and queries exceed these.
LEAST_ROWS, LEAST_BYTES, TIMES = 1_000_000, 256 * MB, 64
SECONDS = 20.0  # and one more a MB

Rows = list[tuple[Any, ...]]


def connect(file: Path) -> sqlite3.Connection:
    """A connection that does not write to the file itself. Raises sqlite3.Error if it cannot be opened."""
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


class Guard:
    """Lets a connection do no more than read, and no more than its limits; a value has at most `longest` bytes."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits, longest: int = LONGEST) -> None:
        self.meter = Meter(limits)
        self.exceeded: LimitExceeded | None = None
        for statement in SAFELY:
            connection.execute(statement)
        for limit, most in (
            (sqlite3.SQLITE_LIMIT_LENGTH, longest),
            (sqlite3.SQLITE_LIMIT_SQL_LENGTH, LONGEST_QUERY),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN),
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        ):
            connection.setlimit(limit, most)
        connection.set_authorizer(_permitted)
        connection.set_progress_handler(self._is_over, STEPS)

    def restart(self) -> None:
        """Count bytes, rows and seconds again."""
        self.meter, self.exceeded = Meter(self.meter.limits), None

    def _is_over(self) -> bool:
        try:
            self.meter.check_time()
        except LimitExceeded as error:  # which SQLite would swallow
            self.exceeded = error
        return self.exceeded is not None

    def refusal(self, error: BaseException) -> FileError | None:
        """Why a statement was ended that would do or take more than it may; None if it failed by itself."""
        if self.exceeded is not None:
            return self.exceeded
        said = _words(error)
        if said.startswith(("not authorized", "access to ", "unsafe use ")):
            return FileError(
                f"the query does more than it may ({said}): give the name of a table, or one SELECT with functions "
                f"that only compute ({', '.join(sorted(FUNCTIONS))})"
            )
        if said.startswith("string or blob too big"):
            return FileError("a value or a row is too long: leave out its column by a SELECT of the others")
        return None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns whatever reading raises within the block into a FileError."""
        try:
            yield
        except FileError:
            raise
        except Exception as error:
            failed = FileError(f"not a readable data base or query: {_words(error)}")
            raise self.refusal(error) or failed from None


def _words(error: BaseException) -> str:
    """The first line of what SQLite says."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def _permitted(action: int, first: str | None, second: str | None, base: str | None, within: str | None) -> int:
    """What SQLite asks for each part of a statement; `second` is the name of a function."""
    harmless = action in READS or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS)
    return sqlite3.SQLITE_OK if harmless else sqlite3.SQLITE_DENY


def read_rows(file: DataFile, query: str | None, most: int) -> Iterator[tuple[list[str], Rows]]:
    """The names of the columns, and at most `most` rows and about 8 MB of them at a time.

    `query`: the name of a table or a view, or one SELECT; None: the only table. Raises FileError if the data base
    cannot be read, if the query does anything else than to read, or if it gives more than its limits allow.
    """
    most_of_it = Limits(max(LEAST_BYTES, TIMES * file.size), max(LEAST_ROWS, file.size), SECONDS + file.size / MB)
    with closing(connect(file.path)) as connection:
        guard = Guard(connection, most_of_it)
        with guard.reading():
            cursor = connection.execute(one_select(query, tables_in(connection)))
        names = [column[0] for column in cursor.description or ()]
        rows: Rows = []
        size = 0
        while True:
            with guard.reading():
                found = cursor.fetchmany(AT_ONCE)
                now = sum(len(v) if isinstance(v, str | bytes) else 8 for row in found for v in row)
                guard.meter.add(bytes=now, items=len(found))
            rows.extend(found)
            size += now
            if rows and (not found or len(rows) + AT_ONCE > most or size > 8 * MB):
                with guard.meter.paused():
                    yield names, rows
                rows, size = [], 0
            if not found:
                return


def tables_in(connection: sqlite3.Connection) -> list[str]:
    """The names of the tables and views."""
    asked = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
    found = connection.execute(asked).fetchmany(MOST_TABLES)
    return [name for (name,) in found if not name.startswith("sqlite_")]


def one_select(query: str | None, tables: Sequence[str]) -> str:
    """The statement for a table, or for a query. Raises FileError if it is neither."""
    known = ", ".join(tables) or "none"
    if query is None:
        if len(tables) != 1:
            raise FileError(f"tables {known}: choose one by `data.query`, or give a query")
        query = tables[0]
    if query.lower() in map(str.lower, tables):
        return f"SELECT * FROM {quoted(query)}"
    if SELECT.match(asked := query.strip().rstrip("; \n")):
        return asked
    raise FileError(f"{query[:200]!r} is neither a table nor a SELECT; its tables are {known}")


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def check_select(query: str) -> None:
    """Raises FileError unless a query, read as any data base would, is one SELECT that calls only FUNCTIONS.

    For data bases without an authorizer. What they read in different ways (comments, backslashes, quotes with dollars
    or backticks, several statements) is not part of the grammar.
    """
    if SELECT.match(query) is None:
        raise FileError(f"{query[:200]!r} is neither a table nor a SELECT")
    tokens = _tokens(query)
    for before, name, after in zip(["", *tokens], tokens, tokens[1:], strict=False):
        called = after == "(" and NAME.fullmatch(name) is not None
        if called and (before == "." or name.lower() not in FUNCTIONS | BEFORE_PARENTHESES):
            raise FileError(f"the function {name} is not called by a query: give the name of a view that calls it")
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if depth < 0:
            raise FileError("a parenthesis is closed that was not opened")
    if depth:
        raise FileError("a parenthesis is not closed")


def _tokens(query: str) -> list[str]:
    """Names, texts and marks. Raises FileError for what the grammar does not have."""
    found: list[str] = []
    at = 0
    while at < len(query):
        token = TOKEN.match(query, at)
        if token is None or query.startswith(("--", "/*"), at):
            part = query[at : at + 20]
            raise FileError(f"{part!r} is not read in a query: give one SELECT without comments, or the name of a view")
        found += [token[0]] if not token[0].isspace() else []
        at = token.end()
    return found
