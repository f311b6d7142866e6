"""Data bases that SQLAlchemy knows: the rows of a query, read a few at a time in the order of a key.

A query is the name of a table or one SELECT: SQLite's authorizer sees to that, and a grammar for the others. Every part
that was read is kept, so that what was interrupted goes on without asking for it again, and gives the same although the
data base may have changed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from afresh.core import UserError, events
from afresh.data.files import MB, FileError
from afresh.data.imported import jsonable
from afresh.data.limits import Limits
from afresh.data.tables.numbers import is_number
from afresh.data.tables.sql import Guard, check_select, connect
from afresh.services.collect.columns import ColumnOptions, choose, found_in
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Source, Unavailable

ADDRESS = re.compile(r"(sqlite|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?://", re.IGNORECASE)
PASSWORD = re.compile(r"://([^:/@]*):[^@/]*@")
VARIABLE = "AFRESH_DATABASE_PASSWORD"  # what holds the password
READ_ONLY = {  # what a connection is told first
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
QUIET = "afresh"  # the name of the log of connections
TABLE = re.compile(r"\w+")
MOST_BYTES = 64 * MB  # of the rows that are read at a time, beyond which they are fewer
LIMITS = Limits(seconds=60)  # of SQLite, for the rows that are read at a time
LONGEST = 16 * MB  # bytes of a row in SQLite
Rows = list[dict[str, Any]]


class SqlOptions(ColumnOptions):
    """What is asked for."""

    query: str = Field("", description="a query, as SELECT id, body FROM posts; or the name of a table")
    key: str = Field("", description="column whose values differ and can be ordered, as id")
    chunk: int = Field(1_000, ge=1, le=100_000, description="rows that are read at a time")


def accepts(place: str) -> bool:
    """Raises UserError for an address with a password, which the data set would keep."""
    if ADDRESS.match(place) is None:
        return False
    if PASSWORD.search(place):
        raise UserError(
            PASSWORD.sub(r"://\1@", place) + " is given with a password, which the data set would keep. Leave it out, "
            f"and set the environment variable {VARIABLE}."
        )
    return True


@dataclass(frozen=True)
class Opened:
    """A connection that reads only. `guard`: of one to SQLite."""

    connection: Any
    guard: Guard | None

    def rows(self, asked: Any) -> tuple[Rows, bool]:
        """The rows of a statement, as many as MOST_BYTES and one more, and whether these are all."""
        if self.guard is not None:
            self.guard.restart()
        rows: Rows = []
        size = 0
        with self.connection.execute(asked) as result:
            for row in result.mappings():
                rows.append(dict(row))
                size += sum(len(v) if isinstance(v, str | bytes) else 8 for v in row.values())
                if size > MOST_BYTES and len(rows) > 1:
                    return rows, False
        return rows, True


@contextmanager
def connected(place: str) -> Iterator[Opened]:
    """A connection. Raises UserError if the address, the package or the driver is wrong, or if a query does or takes
    more than it may, and Unavailable if the data base does not answer."""
    try:
        from sqlalchemy import create_engine, text
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
        from sqlalchemy.pool import NullPool
    except ImportError:
        raise UserError(
            "Data bases are read by SQLAlchemy, which is not installed: pip install 'afresh[collect]'."
        ) from None
    try:
        url = make_url(place)
        lite = url.get_backend_name() == "sqlite"
        file = Path(url.database or "")
        if lite and not file.is_file():
            raise UserError(f"{place} names no file. Give sqlite:///FILE, or sqlite:////FOLDER/FILE from the root.")
        password = os.environ.get(VARIABLE)
        # a connection that went away is told below, and not by the traceback of its end
        logging.getLogger(f"sqlalchemy.pool.impl.NullPool.{QUIET}").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"poolclass": NullPool, "pool_logging_name": QUIET}
        if lite:
            engine = create_engine("sqlite://", creator=lambda: connect(file), **options)
        else:
            engine = create_engine(url.set(password=password) if password else url, **options)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(
            f"{place} is not the address of a data base: {error}. Give one as sqlite:///FILE or "
            "postgresql://USER@HOST/NAME."
        ) from None
    except ImportError as error:
        raise UserError(
            f"The driver of {url.get_backend_name()} is not installed: {error}. Install it by pip."
        ) from None
    guard: Guard | None = None
    try:
        with engine.connect().execution_options(stream_results=True) as connection:
            if (statement := READ_ONLY.get(url.get_backend_name())) is not None:
                connection.execute(text(statement))
                connection.commit()  # it holds from the next transaction on
            if lite:
                driver = connection.connection.driver_connection
                assert isinstance(driver, sqlite3.Connection)
                guard = Guard(driver, LIMITS, LONGEST)
            yield Opened(connection, guard)
            connection.rollback()
    except SQLAlchemyError as error:
        refusal = None if guard is None else guard.refusal(getattr(error, "orig", None) or error)
        if refusal is not None:
            raise UserError(f"{place} is not read: {refusal}.", "sql") from None
        raise Unavailable(f"the data base failed: {_words(error)}", "data_base") from None
    finally:
        engine.dispose()


def _words(error: Exception) -> str:
    """The first line of what a data base says; the query and its values follow."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


def statement(options: SqlOptions, after: Any) -> Any:
    """The query for the rows after a value of the key, or for the first ones."""
    from sqlalchemy import column, select, table, text

    asked = options.query.strip().rstrip("; \n")
    named = TABLE.fullmatch(asked) is not None
    rows: Any = table(asked) if named else text(asked).columns(column(options.key)).subquery("asked")
    key = column(options.key) if named else rows.c[options.key]
    many = options.chunk + 1  # one more, to see that keys differ
    found = select(text("*")).select_from(rows).order_by(key).limit(many)
    return found if after is None else found.where(key > after)


def chunks(place: str, options: SqlOptions, fetched: Fetched) -> Iterator[Rows]:
    """The rows, a part at a time: those that were kept, and then those that are asked for."""
    after: Any = None
    number = 0
    while (kept := fetched.get(f"{place} {number}")) is not None:
        rows: Rows = json.loads(kept[0])
        yield rows
        number, after = number + 1, kept[1]["after"]
        if kept[1]["last"]:
            return
    with connected(place) as opened:
        if opened.guard is None and TABLE.fullmatch(options.query.strip()) is None:
            try:
                check_select(options.query.strip().rstrip("; \n"))
            except FileError as error:
                raise UserError(f"{place} is not read: {error}.", "sql") from None
        while True:
            read, complete = opened.rows(statement(options, after))
            keys = [row[options.key] for row in read]
            if any(not isinstance(key, str | int | float) for key in keys) or len(set(keys)) < len(keys):
                raise UserError(
                    f"The key {options.key!r} has values that are equal, missing, or neither numbers nor texts. Choose "
                    "another column, as one of the primary key."
                )
            many = options.chunk if complete else len(read) - 1
            rows = [{k: jsonable(_plain(v)) for k, v in row.items()} for row in read[:many]]
            last = complete and len(read) <= options.chunk
            after = keys[:many][-1] if keys else None
            fetched.put(f"{place} {number}", json.dumps(rows).encode(), {"after": after, "last": last})
            yield rows
            if last:
                return
            number += 1


def _plain(value: Any) -> Any:
    """Times as ISO 8601 says them, and bytes that are text as text."""
    moment = getattr(value, "isoformat", None)
    if callable(moment):
        return str(moment())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def find(place: str, options: SqlOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """The rows in the order of the key. Raises Unavailable, after what was read, if the data base goes away."""
    if not options.query or not options.key:
        raise UserError(
            "Say what is read of the data base by two options of the source: query=TABLE (or a SELECT), and "
            "key=COLUMN, whose values all differ, as id. A dry run lists its tables."
        )
    parts = chunks(place, options, fetched)
    first = next(parts, [])
    if not first:
        return
    names = list(first[0])
    texts = [n for n in names if any(isinstance(v := row[n], str) and not is_number(v) for row in first)]
    columns = choose(names, [t for t in texts if t != options.key], [], options)
    events.note(f"{place}: {columns.words()}", "columns")
    for rows in chain([first], parts):
        for row in rows:
            yield found_in(place, f"{options.key} {row[options.key]}", row, columns)


def describe(place: str, options: SqlOptions) -> list[str]:
    from sqlalchemy import inspect

    with connected(place) as opened:
        tables = inspect(opened.connection).get_table_names()
    asked = options.query or "a query is needed"
    return [f"{place}: {asked}; its tables are {', '.join(tables) or 'none'}"]


ABOUT = "a data base that SQLAlchemy knows (sqlite:///FILE, postgresql://...)"
SOURCE = Source("sql", ABOUT, accepts, find, describe, SqlOptions)
