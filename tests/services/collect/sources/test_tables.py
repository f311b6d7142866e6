"""Tables: rows in their order, columns named or guessed, and rows that cannot be used."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from afresh.core import UserError, events
from afresh.core.events import Event, listening
from afresh.services.collect.gather import CollectLimits, gather, place_of
from afresh.services.collect.sources import source_of, tables
from tests.services.collect.sources.finding import STRICT, find

ROWS = [
    {"id": i, "body": f"Story {i}\nof a river.", "author": f"ann{i % 2}", "license": "CC0-1.0", "date": "2024-05-03"}
    for i in range(5)
]


def png(value: int = 0) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def as_csv(path: Path, delimiter: str = ",") -> None:
    lines = [delimiter.join(ROWS[0])]
    lines += [delimiter.join('"' + str(v) + '"' for v in row.values()) for row in ROWS]
    path.write_text("\n".join(lines) + "\n")


def as_excel(path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    book.active.append(list(ROWS[0]))
    for row in ROWS:
        book.active.append(list(row.values()))
    book.save(path)


def as_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


WRITERS = {
    "a.csv": as_csv,
    "semicolon.csv": lambda path: as_csv(path, ";"),
    "a.tsv": lambda path: as_csv(path, "\t"),
    "a.xlsx": as_excel,
    "a.jsonl": as_lines,
    "a.json": lambda path: path.write_text(json.dumps({"rows": ROWS})),
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "a.feather": lambda path: __import__("pyarrow.feather").feather.write_feather(pa.Table.from_pylist(ROWS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_rows_of_every_format_are_found_with_what_columns_say(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    found, left = find(tmp_path / name)
    assert not left and [f.content for f in found] == [row["body"] for row in ROWS]
    assert [f.where for f in found][:2] == [f"{name}, row 1", f"{name}, row 2"]
    about = found[1].about
    assert (about.person, about.licence, about.time[:10]) == ("ann1", "CC0-1.0", "2024-05-03")
    assert about.licence_from == "the column license"


def test_columns_are_named_by_options_or_guessed_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"one": "first", "two": "second"}\n')
    with pytest.raises(UserError, match=r"option text=COLUMN.*one, two"):
        find(tmp_path / "a.jsonl")
    said: list[Event] = []
    with listening(said.append):
        found, _ = find(tmp_path / "a.jsonl", text="two", title="one")
    assert [(f.content, f.about.title) for f in found] == [("second", "first")]
    assert said[0].text == "a.jsonl: text is 'two'; title is 'one'"
    with pytest.raises(UserError, match="No column 'three' for `text`"):
        find(tmp_path / "a.jsonl", text="three")
    assert events.listener() is None


def test_a_table_whose_columns_are_not_clear_is_not_kept_as_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"one": "first", "two": "second"}\n')
    with pytest.raises(UserError, match="option text=COLUMN"):
        gather([place_of(str(tmp_path / "a.jsonl"))], tmp_path / "set", off=STRICT)
    made = gather([place_of(str(tmp_path / "a.jsonl"), {"text": "two"})], tmp_path / "set", off=STRICT)
    assert made["items"] == {"text": 1} and len(made["sources"]) == 1


def test_conversations_are_found(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = [{"messages": talk}, {"messages": talk[:1]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,), left = find(tmp_path / "a.jsonl")
    assert found.kind == "conversation" and json.loads(str(found.content)) == talk
    assert "ends with the user" in left["a.jsonl, row 2"]


def test_rows_that_cannot_be_used_are_listed_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST", 5_000)
    deep = "[" * 4_000
    lines = [b'{"text": "a"}', b"{", f'{{"text": {deep}}}'.encode(), b'{"text": "\xff"}', b'{"text": " "}', b"3"]
    lines += [b'{"text": "' + b"b" * 20_000 + b'"}', b'{"text": "c"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    found, left = find(tmp_path / "a.jsonl")
    assert [f.content for f in found] == ["a", "c"]
    reasons = [
        "not JSON",
        "nested too deeply" if sys.version_info < (3, 12) else "not JSON",  # newer ones read to its end, which lacks
        "invalid UTF-8",
        "is empty",
        "neither an object",
        "a line or a row of more than",
    ]
    assert [(int(k.split()[-1]), r in v) for (k, v), r in zip(left.items(), reasons, strict=True)] == [
        (n, True) for n in range(2, 8)
    ]


def test_a_damaged_row_of_a_csv_is_left_out_and_formulas_stay_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST", 200)
    body = 'text,label\n=1+1,a\n"b"c,d\none\ntwo,b\n' + "x" * 900 + ',y\n"three\nfour",\n"' + "never ends\n" * 50
    (tmp_path / "a.csv").write_text(body)
    said: list[Event] = []
    with listening(said.append):
        found, left = find(tmp_path / "a.csv")
    assert [f.content for f in found] == ["=1+1", "two", "three\nfour"]
    assert [left[f"a.csv, row {n}"].split(":")[0] for n in (2, 3, 5)] == [
        "damaged",
        "1 fields, but the header has 2",
        "damaged",
    ]
    assert "1 cell begins with =" in said[-1].text


def test_tables_that_are_too_wide_or_damaged_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(50_000)) + "\n")
    (tmp_path / "b.csv").write_text("a,a\n1,2\n")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "d.xlsx").write_bytes(b"PK no")
    (tmp_path / "e.jsonl").write_text('{"text": "kept"}\n')
    found, left = find(tmp_path)
    assert [f.content for f in found] == ["kept"]
    assert "50,000 columns" in left["a.csv"] and "more than once" in left["b.csv"]
    assert "Parquet" in left["c.parquet"] and "damaged" in left["d.xlsx"]


def test_formulas_of_excel_are_not_evaluated(tmp_path: Path) -> None:
    book = pytest.importorskip("openpyxl").Workbook()
    for row in (["text", "n"], ["=1+1", 1], ["words", 2]):
        book.active.append(row)
    book.create_sheet("other").append(["text"])
    book.save(tmp_path / "a.xlsx")
    assert [f.content for f in find(tmp_path / "a.xlsx")[0]] == ["=1+1", "words"]
    assert find(tmp_path / "a.xlsx", sheet="other") == ([], {})
    with pytest.raises(UserError, match="Name one of: Sheet, other"):
        find(tmp_path / "a.xlsx", sheet="third")


def test_files_that_a_table_names_or_holds_are_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(2))
    names = ["a.png", "../secret.png", "no.png", "t.csv"]
    (tmp_path / "in" / "t.csv").write_text("file_name,text\n" + "".join(f"{n},a {n}\n" for n in names))
    (found,), left = find(tmp_path / "in" / "t.csv")
    assert found.content == png(1) and found.about.caption == "a a.png"
    assert [v.split("' ")[-1] for v in left.values()] == [
        "is not in the folder of the table. Move it there",
        "does not exist in the folder of the table, nor in a .zip there",
        "is neither an image nor a sound of a format that is read",
    ]
    rows = [{"image": {"bytes": png(i), "path": None}, "label": "x"} for i in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found_rows, _ = find(tmp_path / "a.parquet")
    assert [f.content for f in found_rows] == [png(0), png(1)] and found_rows[0].about.label == "x"


def test_a_folder_of_tables_is_told_from_a_folder_of_files(tmp_path: Path) -> None:
    as_lines(tmp_path / "train-00000-of-00001.jsonl")
    (tmp_path / "README.md").write_text("About")
    assert source_of(str(tmp_path)).name == "tables"
    assert {f.about.split for f in find(tmp_path)[0]} == {"train"}
    (tmp_path / "story.txt").write_text("Once")
    assert source_of(str(tmp_path)).name == "folder"


def test_what_is_resumed_is_the_same(tmp_path: Path) -> None:
    as_lines(tmp_path / "a.jsonl")
    whole = gather([place_of(str(tmp_path / "a.jsonl"))], tmp_path / "whole", off=STRICT)["digest"]
    gather([place_of(str(tmp_path / "a.jsonl"))], tmp_path / "set", off=STRICT, limits=CollectLimits(items=2))
    assert gather([], tmp_path / "set", off=STRICT, resume=True)["digest"] == whole
