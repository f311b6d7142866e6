"""Spreadsheets are tables: the first sheet with one, its cells in one form, and refusals that say what to do."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.data.files import FileError, named
from afresh.data.prepare import choose_modality
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.rows import RowTable, read_head, read_table
from afresh.data.tables.spreadsheet import text_of_sheet
from afresh.domains.interactions.log import read_log
from afresh.domains.text.modality import MODALITY as TEXT
from afresh.domains.text.modality import TextOptions

openpyxl = pytest.importorskip("openpyxl")
BEGUN = datetime(2026, 1, 31, 9, 30)


def book(**sheets: Sequence[Sequence[Any]]) -> bytes:
    made = openpyxl.Workbook(write_only=True)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def calculated(raw: bytes, part: str, change: Callable[[bytes], bytes]) -> bytes:
    """A book of which one part is changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name.endswith(part) else old.read(name))
    return out.getvalue()


def orders(count: int = 30) -> list[list[Any]]:
    """A sheet as shops keep it: a title, names of columns, days and times of day, and a total."""
    rows: list[list[Any]] = [["Orders of January"], [], ["Order date", "Time", "Customer", "Product", "Price"]]
    for i in range(count):
        when = BEGUN + timedelta(hours=5 * i)
        rows.append([when.date(), when.time(), f"{i % 6:03}", f"P{i % 4}", 1.234 + i % 4])
    return [*rows, ["Total", None, None, None, 99.5]]


def every_way(path: Path) -> list[list[dict[str, Any]]]:
    head, whole = read_head(named(path)), read_table(path.suffix, path.read_bytes(), 64)
    rows: Callable[[RowTable], list[dict[str, Any]]] = lambda table: [dict(row) for _, row in table.rows]  # noqa: E731
    return [rows(head), rows(whole), [r for b in batches(named(path), Unusable()) for r in b.to_pylist()]]


def test_cells_have_one_form_whichever_way_a_table_is_read(tmp_path: Path) -> None:
    cells = ["007", 12, 1.234, date(2026, 1, 31), BEGUN, time(9, 30), timedelta(hours=26), True, 'a "b",\nc', None]
    names = ["code", "n", "x", "day", "when", "clock", "long", "yes", "words", "gap"]
    (tmp_path / "a.xlsx").write_bytes(book(s=[names, cells, ["8", 1, 2.5, None, None, None, None, False, "d", "e"]]))
    for first, second in every_way(tmp_path / "a.xlsx"):
        assert list(first) == names and (second["gap"], second["x"]) == ("e", "2.5")
        assert (first["code"], first["n"], float(first["x"]), first["day"]) == ("007", "12", 1.234, "2026-01-31")
        assert (first["when"], first["clock"]) == ("2026-01-31 09:30:00", "09:30:00")
        assert (first["long"], first["yes"], first["words"]) == ("26:00:00", "true", 'a "b",\nc')
        assert not first["gap"] and not second["day"]


def test_the_first_sheet_with_a_table_is_read_and_said_without_title_and_totals(tmp_path: Path) -> None:
    path = tmp_path / "shop.xlsx"
    path.write_bytes(book(Cover=[["Our shop"]], Orders=orders(), Old=orders(3)))
    table = read_table(".xlsx", path.read_bytes(), 64)
    assert table.columns[:3] == ("Order date", "Time", "Customer") and len(table.rows) == 30
    assert "'Orders' is read, and not 'Cover', 'Old'" in table.notes[0] and "Orders of January" in table.notes[1]
    assert [reason for _, reason in table.bad] == ["a line of totals, and no row"]
    log, refused, notes = read_log(path, {})
    assert len(log) == 30 and "000" in log.users and [r.reason for r in refused] == ["a line of totals, and no row"]
    assert log.time.min() == BEGUN.replace(tzinfo=UTC).timestamp()
    assert "time is 'Order date' and 'Time' together" in notes[0]


def test_its_kind_is_found_as_that_of_any_table(tmp_path: Path) -> None:
    (tmp_path / "shop.xlsx").write_bytes(book(s=orders()))
    assert choose_modality(tmp_path / "shop.xlsx", None)[0].name == "interactions"
    story = [["text"], *([f"Once in the year {i} there was a river, and it was long."] for i in range(30))]
    (tmp_path / "texts.xlsx").write_bytes(book(s=story))
    assert choose_modality(tmp_path / "texts.xlsx", None)[0].name == "text"


def test_a_formula_counts_by_its_value_and_one_without_is_said() -> None:
    raw = book(s=[["text", "n"], ["=1+1", 1], ["#N/A", 2], ["words", 3]])
    notes: list[str] = []
    assert text_of_sheet(raw, 64, notes) == "text,n\n=1+1,1\n,2\nwords,3\n"
    assert "1 formula without a value, read as text" in notes[0] and "1 cell with an error" in notes[1]
    valued = calculated(raw, "sheet1.xml", lambda part: part.replace(b"</f><v></v>", b"</f><v>2</v>").replace(
        b"</f><v />", b"</f><v>2</v>"))  # fmt: skip
    notes = []
    assert "\n2,1\n" in text_of_sheet(valued, 64, notes) and "formula" not in notes[0]


def test_what_is_no_table_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = book(s=orders(3))
    bomb = calculated(
        good, "sheet1.xml", lambda part: part.replace(b"</sheetData>", b"</sheetData>" + b" " * (9 << 20))
    )
    far = "".join(f'<row r="{i}"><c r="XFD{i}"><v>1</v></c></row>' for i in range(50, 99)).encode()
    wide = calculated(good, "sheet1.xml", lambda part: part.replace(b"</sheetData>", far + b"</sheetData>"))
    monkeypatch.setattr("afresh.data.tables.spreadsheet.MOST_CELLS", 100_000)
    for raw, reason in {
        b"PK no": "damaged",
        b"\xd0\xcf\x11\xe0" + bytes(600): "without a password",
        book(s=[["one"]]): "no sheet has a table",
        bomb: "decompression bomb",
        wide: "more than 100,000 items",
    }.items():
        with pytest.raises(FileError, match=reason):
            text_of_sheet(raw, 64, [])
    with pytest.raises(FileError, match="at most 1 MB"):
        text_of_sheet(bomb, 1, [])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "a.xlsx").write_bytes(good)
    with pytest.raises(UserError, match=r"pip install 'afresh\[spreadsheets\]'"):
        read_log(tmp_path / "a.xlsx", {})
    with pytest.raises(UserError, match=r"pip install 'afresh\[spreadsheets\]'"):
        TEXT.read(tmp_path / "a.xlsx", TextOptions())
