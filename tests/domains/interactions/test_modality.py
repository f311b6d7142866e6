"""Logs of users' choices: columns are found, odd rows are counted and said, and nothing of the future is learnt."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from afresh.core import Corpus, UserError
from afresh.data.files import FileError, walk
from afresh.data.tables.batches import Unusable, batches
from afresh.domains.interactions.encoder import HistoryEncoder
from afresh.domains.interactions.history import History, encode
from afresh.domains.interactions.log import read_log
from afresh.domains.interactions.modality import MODALITY, InteractionOptions

START = 1_700_000_000


def log(users: int = 12, each: int = 6) -> list[dict[str, object]]:
    """Events an hour apart, in which user u begins with item u."""
    rows = []
    for e in range(each):
        for u in range(users):
            rows.append({"user_id": f"u{u}", "item_id": f"i{(u + e) % 8}", "time": START + 3600 * (e * users + u)})
    return rows


def csv_of(rows: list[dict[str, object]]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]) + "\n"


def read(path: Path, **options: object) -> Corpus:
    return MODALITY.read(path, InteractionOptions.model_validate(options))


def fitted(corpus: Corpus) -> HistoryEncoder:
    return MODALITY.fit([i for i in corpus.items if i.split == "train"], InteractionOptions())


def write(folder: Path, form: str, rows: list[dict[str, object]]) -> Path:
    file = folder / f"log.{form}"
    if form == "csv":
        file.write_text(csv_of(rows), encoding="utf-8")
    elif form == "inter":
        names = {"user_id": "user_id:token", "item_id": "item_id:token", "time": "timestamp:float"}
        file.write_text(
            csv_of([{names[k]: v for k, v in r.items()} for r in rows]).replace(",", "\t"), encoding="utf-8"
        )
    elif form == "jsonl":
        file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    elif form == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), file)
    elif form == "dat":
        file.write_text("".join(f"{r['user_id'][1:]}::{r['item_id'][1:]}::5::{r['time']}\n" for r in rows))  # type: ignore[index]
    else:
        with sqlite3.connect(file) as base:
            base.execute("CREATE TABLE log (user_id TEXT, item_id TEXT, time INTEGER)")
            base.executemany("INSERT INTO log VALUES (?, ?, ?)", [tuple(r.values()) for r in rows])
    return file


@pytest.mark.parametrize("form", ["csv", "inter", "jsonl", "parquet", "sqlite", "dat"])
def test_every_form_gives_the_same_histories(form: str, tmp_path: Path) -> None:
    corpus = read(write(tmp_path, form, log()), split="last")
    mark = "" if form == "dat" else "i"  # MovieLens' files hold numbers
    first = next(i.value for i in corpus.items if i.split == "validation" and i.value.user in ("u0", "0"))
    assert first.items == tuple(f"{mark}{e % 8}" for e in range(6)) and first.context == 5
    assert first.times[0] == START and not corpus.refused
    assert sum(i.split == "train" for i in corpus.items) == 12


def test_days_and_times_of_day_in_two_columns_are_one_time(tmp_path: Path) -> None:
    rows = [f"u{i},i{j},2026-01-0{1 + j},{12 - j}:15 PM,{9 + j}:00" for i in range(3) for j in range(3)]
    (tmp_path / "log.csv").write_text(
        "\n".join(["Customer,Product,Date,Time,Delivery time", *rows, "u0,i4,2026-01-04,,"])
    )
    log, refused, notes = read_log(tmp_path, {})
    assert "time is 'Date' and 'Time' together" in notes[0] and not refused
    assert "1 event without a time of day, taken as at 0:00" in notes
    assert log.time.min() == datetime(2026, 1, 1, 12, 15, tzinfo=UTC).timestamp() and len(set(log.time)) == 4


def test_a_log_is_divided_at_a_point_in_time_and_no_later_event_is_learnt(tmp_path: Path) -> None:
    corpus = read(write(tmp_path, "csv", log()))
    train = [t for i in corpus.items if i.split == "train" for t in i.value.times]
    late = [t for i in corpus.items if i.split == "validation" for t in i.value.times[i.value.context :]]
    assert max(train) < min(late) and len(train) + len(late) == 72 and len(late) in (7, 8)
    for item in corpus.items:
        if item.split == "validation":
            assert max(item.value.times[: item.value.context]) <= max(train)


def test_a_split_by_user_trains_on_no_event_of_those_held_out(tmp_path: Path) -> None:
    corpus = read(write(tmp_path, "csv", log(60)), split="user")
    sides = {side: {i.value.user for i in corpus.items if i.split == side} for side in ("train", "validation")}
    assert sides["validation"] and not sides["train"] & sides["validation"]
    assert all(i.value.context == 3 for i in corpus.items if i.split == "validation")


def test_times_in_several_units_are_said_and_become_the_same(tmp_path: Path) -> None:
    rows = log()
    for i, row in enumerate(rows):
        seconds = int(str(row["time"]))
        row["time"] = (seconds, seconds * 1000, f"{seconds}")[i % 3]
    corpus = read(write(tmp_path, "csv", rows), split="last")
    assert any("several forms: 48 in seconds, 24 in milliseconds" in n for n in corpus.notes)
    assert all(list(i.value.times) == sorted(i.value.times) for i in corpus.items)


def test_odd_rows_are_counted_with_the_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    rows = log()
    text = csv_of(rows) + "u1,,1700000000\n,i1,1700000000\nu1,i1,soon\nu1,i1\n" + csv_of(rows[:3]).split("\n", 1)[1]
    (tmp_path / "log.csv").write_text(text, encoding="utf-8")
    corpus = read(tmp_path / "log.csv", split="last")
    reasons = {r.reason: r.source for r in corpus.refused}
    assert reasons["no user or no item"] == "log.csv, row 73 and 1 more"
    assert "unreadable time" in reasons and "not 3 fields" in reasons
    assert any(n.startswith("3 events left out, equal to another") for n in corpus.notes)
    assert sum(len(i.value.targets) for i in corpus.items) == 72


def test_a_user_with_one_event_is_learnt_and_not_judged(tmp_path: Path) -> None:
    rows = [*log(), {"user_id": "once", "item_id": "i0", "time": START}]
    corpus = read(write(tmp_path, "csv", rows), split="last")
    assert [i.split for i in corpus.items if i.value.user == "once"] == ["train"]
    assert any("1 user with a single event" in n for n in corpus.notes)


def test_an_item_that_only_comes_later_is_left_out_of_the_tokens_and_kept_in_the_history(tmp_path: Path) -> None:
    rows = [*log(), {"user_id": "u1", "item_id": "new", "time": START + 10**6}]
    corpus = read(write(tmp_path, "csv", rows))
    encoder = fitted(corpus)
    held = [i for i in corpus.items if i.split == "validation"]
    assert any("new" in i.value.targets for i in held) and "new" not in encoder.catalogue.index
    known = sum(t in encoder.catalogue.index for i in held for t in i.value.targets)
    found = encoder.encode(held)
    assert found.mask is not None and int(found.mask.sum()) == known


def test_ids_that_change_type_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n1,7\n1,8\n2,7\n2,9\n", encoding="utf-8")
    parquet.write_table(pa.table({"user": [1.0, 2.0], "item": [9, 8]}), tmp_path / "b.parquet")
    corpus = read(tmp_path, split="last")
    histories = {i.value.user: i.value.items for i in corpus.items if i.split == "validation"}
    assert histories == {"1": ("7", "8", "9"), "2": ("7", "9", "8")}
    assert any("2 ids stored as numbers with a point" in n for n in corpus.notes)


def test_negative_ratings_are_said_and_a_bound_is_kept(tmp_path: Path) -> None:
    rows = [{**row, "rating": -1 if i % 6 == 0 else 4} for i, row in enumerate(log())]
    file = write(tmp_path, "csv", rows)
    assert any("ratings from -1 to 4, of which 12 are negative: every event counts" in n for n in read(file).notes)
    corpus = read(file, least_rating=1, split="last")
    assert any("12 events left out: a rating below 1" in n for n in corpus.notes)
    with pytest.raises(UserError, match="nothing is left"):
        read(file, least_rating=9)


def test_kinds_of_events_are_said_and_chosen(tmp_path: Path) -> None:
    rows = [{**row, "event": ("view", "buy")[i % 4 == 0]} for i, row in enumerate(log())]
    file = write(tmp_path, "csv", rows)
    assert any("kinds of events, which all count: buy 18, view 54" in n for n in read(file, split="last").notes)
    assert any("54 events left out" in n for n in read(file, kinds="buy", split="last").notes)
    with pytest.raises(UserError, match="The kinds are: buy, view"):
        read(file, kinds="sell")


def test_small_users_and_items_are_left_out_only_where_asked(tmp_path: Path) -> None:
    rows = [*log(), {"user_id": "once", "item_id": "rare", "time": START}]
    file = write(tmp_path, "csv", rows)
    assert any(i.value.user == "once" for i in read(file, split="last").items)
    corpus = read(file, core=3, split="last")
    assert not any(i.value.user == "once" for i in corpus.items)
    assert any("1 event left out: of users or items with fewer than 3 events" in n for n in corpus.notes)


def test_features_of_items_and_traits_of_users_come_from_tables_beside(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(csv_of(log(24)), encoding="utf-8")
    items = "item_id,title,price\n" + "".join(f"i{i},Thing {i},{i}.5\n" for i in range(8))
    (tmp_path / "items.csv").write_text(items, encoding="utf-8")
    users = "user_id,city\n" + "".join(f"u{u},{('Rome', 'Oslo')[u % 2]}\n" for u in range(24))
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    corpus = read(tmp_path, split="last")
    encoder = fitted(corpus)
    assert encoder.catalogue.title(encoder.catalogue.index["i3"]) == "Thing 3"
    cheap = encoder.catalogue.where({"price": "<2"})
    assert sorted(i for i, ok in zip(encoder.catalogue.ids, cheap, strict=True) if ok) == ["i0", "i1"]
    assert encoder.conds["city"].classes == ("Oslo", "Rome")
    with pytest.raises(UserError, match="Their features are: title, price"):
        encoder.catalogue.where({"colour": "red"})


def test_names_of_pictures_are_no_words_and_the_pictures_are_not_refused(tmp_path: Path) -> None:
    write(tmp_path, "csv", log())
    rows = [f"i{i},{('red', 'blue')[i % 2]},{i}.png" for i in range(8)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,colour,photo", *rows, ""]))
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(b"a picture")
    corpus = read(tmp_path)
    encoder = fitted(corpus)
    assert not corpus.refused and set(encoder.catalogue.words[1]) == {"colour=red", "colour=blue"}
    assert "photo (pictures, which are not looked at)" in encoder.notes[-1]


def test_a_feature_that_changes_later_keeps_its_first_value(tmp_path: Path) -> None:
    rows = [{**row, "genre": "old" if i < 71 else "new"} for i, row in enumerate(log())]
    corpus = read(write(tmp_path, "csv", rows), split="last")
    assert set(fitted(corpus).catalogue.features["genre"]) == {"old"}
    assert any("'genre' changes later in 1 event" in n for n in corpus.notes)


def test_a_column_that_there_is_not_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="needs a column of users and one of items"):
        read(tmp_path / "log.csv")
    with pytest.raises(UserError, match=r"No column 'who'.*user_id, item_id, time"):
        read(write(tmp_path, "csv", log()), user="who")


def test_a_catalogue_of_one_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "item_id": "only"} for row in log()]
    with pytest.raises(UserError, match="nothing to choose from"):
        fitted(read(write(tmp_path, "csv", rows)))


def test_sessions_are_learnt_where_asked(tmp_path: Path) -> None:
    rows = [{**row, "session": f"{row['user_id']}/{i // 36}"} for i, row in enumerate(log())]
    file = write(tmp_path, "csv", rows)
    assert len({i.value.user for i in read(file, split="last").items}) == 12
    assert len({i.value.user for i in read(file, by="session", split="last").items}) == 24


def test_users_with_one_event_each_leave_nothing_to_hold_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are 3 events of 3 users, at most 1 of one.*two events or more"):
        read(write(tmp_path, "csv", log(users=3, each=1)), split="last")


def test_a_log_is_read_alike_however_its_rows_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users and items are numbered as they first occur in a row that is used, also where batches are small."""
    rows = [
        f"{u},{i},{t}" for u, i, t in (("b", "x", 5), ("", "y", 6), ("a", "y", "soon"), ("a ", "x", 7), ("b", "z", 8))
    ]
    rows += [f"{u}.0,{i},{START + i}" for u in (3, 1) for i in (2, 4)] + ["1,2,\n", '"3",x y ,9']
    file = tmp_path / "log.csv"
    file.write_text("\n".join(["user,item,time", *rows * 3, ""]), encoding="utf-8")
    whole, refused, notes = read_log(file, {})
    assert whole.users[:3] == ("b", "a", "3") and whole.items[:3] == ("x", "z", "2")
    monkeypatch.setattr("afresh.data.tables.delimited.BLOCK", 64)
    parts, refused_parts, notes_parts = read_log(file, {})
    assert (parts.users, parts.items) == (whole.users, whole.items)
    assert "12 ids stored as numbers with a point, read without it" in {*notes} & {*notes_parts}
    assert [r.reason for r in refused_parts] == [r.reason for r in refused]
    for name in ("user", "item", "time"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize(
    "history",
    [
        History("Ann", ("a", 'b "c"', "é\n", "\u2028"), (1.5, 1e22, 0.1), 1),
        History("", (), ()),
        History("7", ("1",), (float("nan"),)),
        History("7", ("1", "2"), (np.float64(3), float("inf"))),
    ],
)
def test_a_history_is_written_as_json_dumps_writes_it(history: History) -> None:
    values = {"user": history.user, "items": history.items, "times": history.times, "context": history.context}
    expected = json.dumps({k: v for k, v in values.items() if v or k == "items"}, ensure_ascii=False)
    assert encode(history) == expected.encode()


def test_a_column_of_a_kind_that_no_log_has_refuses_its_file_alone(tmp_path: Path) -> None:
    write(tmp_path, "csv", log())
    odd = pa.table({"user": pa.array([{"a": 1}] * 3), "item": pa.array([[1], [2], None]), "time": [1, 2, 3]})
    parquet.write_table(odd, tmp_path / "odd.parquet")
    corpus = read(tmp_path, split="last")
    assert [r.source for r in corpus.refused] == ["odd.parquet"] and len(corpus.items) == 24


def test_parquet_that_unpacks_to_far_more_than_it_has_is_refused_before(tmp_path: Path) -> None:
    long = pa.table({"user": ["u"] * 300, "item": ["x" * (1 << 20)] * 300})
    parquet.write_table(long, tmp_path / "a.parquet", use_dictionary=["user"], compression="zstd")
    many = pa.table({"user": pa.array(["u"] * 5_000_000).dictionary_encode(), "item": pa.array([1] * 5_000_000)})
    parquet.write_table(many, tmp_path / "b.parquet", compression="zstd")
    for name in ("a", "b"):
        file = walk(tmp_path / f"{name}.parquet")[0][0]
        assert file.size < 100_000
        with pytest.raises(FileError, match="bomb"):
            next(batches(file, Unusable()))


def test_rows_of_parquet_are_those_of_the_file_in_batches_of_one_size(tmp_path: Path) -> None:
    table = pa.table({"user": [f"u{i % 7}" for i in range(70_000)], "item": list(range(70_000)), "at": [0.5] * 70_000})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=30_000)
    found = list(batches(walk(tmp_path / "a.parquet")[0][0], Unusable()))
    assert pa.Table.from_batches(found).equals(table) and len(found) == 2
    parquet.write_table(table.rename_columns(["user", "item", "item"]), tmp_path / "b.parquet")
    with pytest.raises(FileError, match="two columns have the same name"):
        next(batches(walk(tmp_path / "b.parquet")[0][0], Unusable()))
