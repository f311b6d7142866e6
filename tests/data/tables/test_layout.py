"""Where the rows of a delimited file begin, and what stands around them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from afresh.data.files import FileError, named
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import BLOCK, Unusable, delimited_batches
from afresh.data.tables.layout import encoding_of, layout_of
from afresh.data.tables.rows import read_table
from afresh.data.tables.totals import lines_of_totals


@pytest.mark.parametrize(
    ("text", "separator", "columns"),
    [
        ("a,b\n1,2\n", ",", ["a", "b"]),
        ("text\nHello, you; there\nWell, then\n", ",", ["text"]),
        ("text\nOne, 5\nTwo, 6\n", ",", ["text"]),
        ("text,label\nhello,x\nwell, then,y\nso, it is,z\nno, no,z\n", ",", ["text", "label"]),
        ("price;n\n1,5;2\n2,5;3\n", ";", ["price", "n"]),
        (",x\n0,1\n1,2\n", ",", ["", "x"]),
        ("a;b;\n1;2;\n3;4;\n", ";", ["a", "b"]),
        ("a;b\n1;2;\n3;4;\n", ";", ["a", "b"]),
        ("a;;c\n1;2;3\n", ";", ["a", "column 2", "c"]),
        ("Report of May\n\na;b\n1;2\n3;4\n", ";", ["a", "b"]),
        ("Report;;\nof May;;\n;;\na;b;c\n1;2;3\n4;5;6\n", ";", ["a", "b", "c"]),
        ("1,2,3\n4,5,6\n", ",", ["1", "2", "3"]),
    ],
)
def test_the_columns_of_a_file_are_found(text: str, separator: str, columns: list[str], tmp_path: Path) -> None:
    layout = layout_of(text)
    assert (layout.separator, list(layout.kept)) == (separator, columns)
    (tmp_path / "a.csv").write_text(text)
    streamed = [row for batch in batches(named(tmp_path / "a.csv"), Unusable()) for row in batch.to_pylist()]
    rows = [dict(row) for _, row in read_table(".csv", text.encode(), 1).rows]
    assert streamed == [{n: v or None for n, v in row.items()} for row in rows]


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(FileError, match="names 'a' more than once"):
        layout_of("a,a\n1,2\n")


def test_units_are_taken_from_below_the_names_only_where_all_stand_over_numbers() -> None:
    assert layout_of("id,ph,c\n,-,mg/L\nx,7.1,2\ny,7.2,3\n").units == {"c": "mg/L"}
    assert not layout_of("id,ph,c\nx,low,mg\nx,7.1,2\ny,7.2,3\n").units
    assert not layout_of("id,c\nx,\ny,3\nz,4\n").units


def test_a_line_of_totals_is_none_of_the_rows_and_an_item_of_that_name_is() -> None:
    rows = [["a", "1", "x"], ["b", "2", "y"], ["Total", "5", "z"], ["c", "3", "x"], ["Total:", "11", ""]]
    assert lines_of_totals(rows) == [4]
    assert lines_of_totals([["a", "1", "2"], ["b", "2", "3"], ["Mean", "1.5", "2.5"]]) == [2]
    assert lines_of_totals([["a", "1", "2"], ["Total", "2", "3"], ["b", "2", "3"]]) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_is_decoded_by_its_beginning(encoding: str, tmp_path: Path) -> None:
    text = "Käufer;Straße\n" + "Jörg;Weg\n" * 3
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    [batch] = batches(named(tmp_path / "a.csv"), Unusable())
    assert batch.to_pylist() == [{"Käufer": "Jörg", "Straße": "Weg"}] * 3
    assert [dict(row) for _, row in read_table(".csv", text.encode(encoding), 1).rows] == batch.to_pylist()


def test_letters_that_come_late_are_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"user,item\n" + b"ann,lamp\n" * 20_000 + "Jörg,Tür\n".encode("cp1252"))
    unusable = Unusable()
    rows = [row for batch in batches(named(tmp_path / "a.csv"), unusable) for row in batch.to_pylist()]
    assert rows[-1] == {"user": "Jörg", "item": "Tür"} and "2 bytes are not UTF-8" in unusable.notes[0]


def test_letters_of_the_east_are_not_taken_for_those_of_the_west() -> None:
    assert encoding_of(("имя,товар\n" + "Анна Петрова,настольная лампа\n" * 20).encode("cp1251")) == "cp1251"


def test_a_file_of_names_alone_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n")
    assert list(batches(named(tmp_path / "a.csv"), Unusable())) == []


@pytest.mark.parametrize("more", [5, 6])
def test_two_colons_may_lie_at_the_end_of_what_is_read_at_once(more: int) -> None:
    text = b"1::2::3" + b"3" * more + b"\n" + b"1::2::3\n" * (BLOCK // 8)
    unusable = Unusable()
    read = delimited_batches(lambda: BytesIO(text), unusable, lambda first: ("a", "b", "c"))
    assert sum(batch.num_rows for batch in read) == BLOCK // 8 + 1 and not unusable.reasons
