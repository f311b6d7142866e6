"""Data bases of SQLite: whoever wrote the file, its views and the query, it is only read, and not without end."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from afresh.data.files import MB, FileError, walk
from afresh.data.tables import sql
from afresh.data.tables.sql import check_select, read_rows

ENDLESS = "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) "


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "data" / "a.db"
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE log (user TEXT, item TEXT, time INTEGER)")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?)", [(f"u{i % 7}", f"i{i}", i) for i in range(1000)])
    return file


def rows(file: Path, query: str | None, most: int = 100) -> list[tuple[Any, ...]]:
    return [row for _, part in read_rows(walk(file)[0][0], query, most) for row in part]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (None, 1000),
        ("log", 1000),
        ("LOG", 1000),
        ("SELECT user, item FROM log;", 1000),
        ("select lower(user) AS u, count(*) AS n FROM log WHERE item LIKE 'i1%' GROUP BY 1 ORDER BY n", 7),
        ("WITH a AS (SELECT *, row_number() OVER (PARTITION BY user) AS n FROM log) SELECT * FROM a WHERE n < 3", 14),
        ("WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x LIMIT 9) SELECT n FROM x", 9),
        ("SELECT value FROM log, json_each('[1, 2]') WHERE date(time, 'unixepoch') = '1970-01-01'", 2000),
    ],
)
def test_a_table_and_a_query_that_only_read_are_read(query: str | None, count: int, base: Path) -> None:
    assert len(rows(base, query)) == count
    assert all(len(part) <= 300 for _, part in read_rows(walk(base)[0][0], query, 300))


@pytest.mark.parametrize(
    "query",
    [
        "VACUUM INTO 'WRITTEN'",
        "ATTACH 'WRITTEN' AS other",
        "SELECT 1; ATTACH 'WRITTEN' AS other",
        "WITH a AS (SELECT 1) INSERT INTO log VALUES (1, 2, 3)",
        "WITH a AS (SELECT 1) DELETE FROM log",
        "CREATE TABLE other (a)",
        "PRAGMA journal_mode = WAL",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('WRITTEN')",
        "SELECT writefile('WRITTEN', 'text')",
        "SELECT readfile('/etc/hostname')",
        "SELECT zeroblob(900000000)",
        "SELECT random() FROM log",
        "EXPLAIN SELECT 1",
        "nothing",
        "\0",
        "SELECT '\ud800'",
        "",
    ],
)
def test_whatever_does_more_is_refused_and_writes_nothing(query: str, base: Path, tmp_path: Path) -> None:
    before = base.read_bytes()
    with pytest.raises(FileError):
        rows(base, query.replace("WRITTEN", str(tmp_path / "written")))
    assert base.read_bytes() == before
    assert [p.name for p in tmp_path.rglob("*")] == ["data", "a.db"]


def test_a_view_may_do_no_more_than_a_query(base: Path) -> None:
    with sqlite3.connect(base) as connection:
        connection.execute("CREATE VIEW few AS SELECT user, item FROM log LIMIT 3")
        connection.execute("CREATE VIEW loads AS SELECT load_extension(user) AS item FROM log")
    assert len(rows(base, "few")) == 3
    with pytest.raises(FileError, match="does more than it may"):
        rows(base, "loads")
    with pytest.raises(FileError, match="tables log, few, loads: choose one"):
        rows(base, None)


@pytest.mark.parametrize("query", [ENDLESS + "SELECT count(*) FROM x", ENDLESS + "SELECT n FROM x ORDER BY n", "view"])
def test_what_does_not_end_is_ended_by_its_time(query: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.1)
    with sqlite3.connect(base) as connection:
        connection.execute(f"CREATE VIEW view AS {ENDLESS} SELECT max(n) AS item FROM x")
    with pytest.raises(FileError, match="takes more than 0 seconds"):
        rows(base, query)


def test_rows_and_bytes_without_end_are_ended_by_their_number(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "LEAST_ROWS", 2_000)
    with pytest.raises(FileError, match="items"):
        rows(base, ENDLESS + "SELECT n FROM x")
    monkeypatch.setattr(sql, "LEAST_BYTES", 2 * MB)
    monkeypatch.setattr(sql, "TIMES", 0)
    with pytest.raises(FileError, match="MB are made of it"):
        rows(base, ENDLESS + "SELECT printf('%9999d', n) FROM x")


def test_a_value_that_is_too_long_is_refused_and_its_column_can_be_left_out(base: Path) -> None:
    with sqlite3.connect(base) as connection:
        connection.execute("CREATE TABLE long AS SELECT 1 AS item, zeroblob(?) AS body", (sql.LONGEST + 1,))
    with pytest.raises(FileError, match="too long: leave out its column"):
        rows(base, "long")
    assert rows(base, "SELECT item FROM long") == [(1,)]


def test_the_time_of_whoever_uses_the_rows_does_not_count(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("afresh.data.limits.time.thread_time", lambda: clock[0])
    for _ in read_rows(walk(base)[0][0], "log", 300):
        clock[0] += 1000


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, body FROM posts",
        "select lower(p.body) as b, count(*) from a.posts as p where id in (1, 2) and b <> 'it''s; (-- not' group by 1",
        "WITH few AS (SELECT * FROM \"my posts\" WHERE n >= -1.5) SELECT coalesce(a, b) || 'x' FROM few WHERE NOT (a)",
        "SELECT id, sum(n) OVER (PARTITION BY who ORDER BY id) FROM t WHERE at::date = '2024-01-01'",
    ],
)
def test_one_select_is_read_where_there_is_no_authorizer(query: str) -> None:
    check_select(query)


@pytest.mark.parametrize(
    "query",
    [
        "COPY posts TO PROGRAM 'sh'",
        "SELECT 1; COPY posts TO PROGRAM 'sh'",
        "SELECT 1) AS a; COPY posts TO PROGRAM 'sh'; SELECT * FROM (SELECT 1",
        "SELECT 1) UNION SELECT * FROM (SELECT 2",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT \"pg_read_file\"('/etc/passwd')",
        "SELECT other.lower(body) FROM posts",
        "SELECT lo_export(1, '/tmp/a')",
        "SELECT 'a\\' ; COPY posts TO PROGRAM 'sh' --'",
        "SELECT $$ ' $$ ; DROP TABLE posts --'",
        "SELECT 1 /*! INTO OUTFILE 'a' */",
        "SELECT 1 # '\n; DROP TABLE posts; # '",
        "SELECT (1",
        "SELECT 'open",
    ],
)
def test_what_is_more_than_one_select_is_refused_where_there_is_no_authorizer(query: str) -> None:
    with pytest.raises(FileError):
        check_select(query)
