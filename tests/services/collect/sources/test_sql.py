"""Data bases: rows in the order of a key, read once, and going on when the data base went away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.collected import rows
from afresh.data.limits import Limits
from afresh.services.collect.forget import ForgetRequest, forget
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.sources import source_of, sql
from tests.services.collect.sources.finding import STRICT, Memory, find

pytest.importorskip("sqlalchemy")


@pytest.fixture
def place(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "a.db") as base:
        base.execute("CREATE TABLE posts (id INTEGER PRIMARY KEY, body TEXT, author TEXT, license TEXT)")
        posts = [(i, f"Post {i} of a river.", f"ann{i % 3}", "CC-BY-4.0") for i in range(20, 0, -1)]
        base.executemany("INSERT INTO posts VALUES (?, ?, ?, ?)", [*posts, (30, None, "bo", None)])
    return f"sqlite:///{tmp_path / 'a.db'}"


def test_the_rows_of_a_table_or_a_query_are_found_in_the_order_of_the_key(place: str) -> None:
    assert source_of(place).name == "sql"
    found, left = find(place, query="posts", key="id", chunk=7)
    assert [f.where for f in found] == [f"id {i}" for i in range(1, 21)]
    assert (found[0].about.person, found[0].about.licence) == ("ann1", "CC-BY-4.0")
    assert left == {"id 30": "no 'body'"}
    asked = "SELECT id * 10 AS n, upper(body) AS words FROM posts WHERE author = 'ann1' AND body IS NOT NULL;"
    found, _ = find(place, query=asked, key="n", chunk=2)
    assert [f.where for f in found] == [f"n {10 * i}" for i in range(1, 20, 3)]
    assert found[0].content == "POST 1 OF A RIVER."


def test_what_was_read_is_not_asked_for_again(place: str, tmp_path: Path) -> None:
    memory = Memory()
    found, _ = find(place, memory, query="posts", key="id", chunk=7)
    (tmp_path / "a.db").unlink()
    assert find(place, memory, query="posts", key="id", chunk=7)[0] == found


def test_a_data_base_that_goes_away_is_gone_on_with(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    options = {"query": "posts", "key": "id", "chunk": 6}
    whole = gather([place_of(place, options)], tmp_path / "whole", off=STRICT)["digest"]
    asked: list[object] = []
    ask = sql.statement

    def fails(options: sql.SqlOptions, after: object) -> object:
        asked.append(after)
        if len(asked) == 3:
            raise OperationalError("SELECT", {}, Exception("server closed the connection"))
        return ask(options, after)

    monkeypatch.setattr(sql, "statement", fails)
    made = gather([place_of(place, options)], tmp_path / "set", off=STRICT)
    assert [row["finished"] for row in made["sources"]] == [False] and made["items"] == {"text": 12}
    made = gather([], tmp_path / "set", off=STRICT, resume=True)
    assert made["digest"] == whole and made["sources"][0]["finished"]
    assert asked == [None, 6, 12, 12, 18], "nothing twice that was read"
    assert len(list(rows(tmp_path / "set"))) == 20


def test_a_data_base_is_only_read(place: str) -> None:
    with sql.connected(place) as opened:
        from sqlalchemy import text

        with pytest.raises(Exception, match="not authorized"):
            opened.connection.execute(text("DELETE FROM posts"))


@pytest.mark.parametrize(
    "query",
    [
        "VACUUM INTO 'WRITTEN'",
        "ATTACH 'WRITTEN' AS other",
        "SELECT 1 AS id) AS a; ATTACH 'WRITTEN' AS other; SELECT * FROM (SELECT 1 AS id",
        "WITH a AS (SELECT 1) DELETE FROM posts",
        "SELECT id, load_extension('WRITTEN') FROM posts",
        "SELECT id, random() FROM posts",
    ],
)
def test_a_query_that_does_more_is_refused_and_writes_nothing(query: str, place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does more than it may|one statement at a time|syntax error"):
        find(place, query=query.replace("WRITTEN", str(tmp_path / "written")), key="id")
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_a_view_without_end_is_ended(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(tmp_path / "a.db") as base:
        endless = (
            "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n AS id, 'text' AS body FROM x"
        )
        base.execute(f"CREATE VIEW endless AS {endless}")
    monkeypatch.setattr(sql, "LIMITS", Limits(seconds=0.1))
    with pytest.raises(UserError, match="is not read: reading it takes more than"):
        find(place, query="endless", key="id")


def test_rows_that_are_long_are_read_fewer_at_a_time_and_none_is_lost(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find(place, query="posts", key="id", chunk=7)
    monkeypatch.setattr(sql, "MOST_BYTES", 60)
    assert find(place, query="posts", key="id", chunk=7) == whole


def test_a_row_that_is_too_long_is_refused_with_its_reason(place: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as base:
        base.execute("UPDATE posts SET body = CAST(zeroblob(?) AS TEXT) WHERE id = 3", (sql.LONGEST + 1,))
    with pytest.raises(UserError, match="too long: leave out its column"):
        find(place, query="posts", key="id")


def test_an_address_cannot_open_a_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with sql.connected(f"sqlite:///{tmp_path}/a.db?mode=rwc&uri=true") as opened:
        assert opened.connection.exec_driver_sql("SELECT 1").scalar() == 1
        assert opened.connection.connection.driver_connection.execute("SELECT 1").fetchone() == (1,)


def test_what_is_wrong_is_said(place: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"query=TABLE.*and key=COLUMN"):
        find(place)
    with pytest.raises(UserError, match="names no file"):
        find(f"sqlite:///{tmp_path}/none.db", query="posts", key="id")
    with pytest.raises(UserError, match="values that are equal"):
        find(place, query="posts", key="author")
    with pytest.raises(UserError, match="no such table: none"):
        find(place, query="none", key="id")
    with pytest.raises(UserError, match="no such column: no"):
        find(place, query="posts", key="no")
    with pytest.raises(UserError, match=r"postgresql://ann@db/x is given with a password.*AFRESH_DATABASE_PASSWORD"):
        source_of("postgresql://ann:secret@db/x")


def test_what_was_forgotten_is_not_kept_when_it_is_read_again(place: str, tmp_path: Path) -> None:
    options = {"query": "posts", "key": "id", "chunk": 6}
    gather([place_of(place, options)], tmp_path / "set", off=STRICT)
    forget(tmp_path / "set", ForgetRequest(person="ann1"))
    gather([], tmp_path / "set", on=["mojibake"])
    assert {row["person"] for row in rows(tmp_path / "set")} == {"ann0", "ann2"}
    assert not any(b"ann1" in path.read_bytes() for path in (tmp_path / "set").glob("work/*/raw/*"))


def test_that_nothing_is_written_is_agreed_before_the_first_query(place: str) -> None:
    from sqlalchemy import Engine, event

    ended: list[object] = []
    note = ended.append
    event.listen(Engine, "commit", note)  # a server takes it for the transactions that follow
    try:
        with sql.connected(place):
            assert len(ended) == 1
    finally:
        event.remove(Engine, "commit", note)
