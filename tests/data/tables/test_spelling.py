"""Numbers and dates in the forms in which people write them become those of Python and ISO 8601, by column."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.data.files import named
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.spelling import date_seconds, spelling_of_cells, written_date, written_number


def read(cells: list[str], separator: str = "", **others: list[str]) -> tuple[list[str], str]:
    spelling = spelling_of_cells({"x": cells, **others}, separator)
    reader = spelling.reader("x") if "x" in spelling.columns else str
    return [reader(c) for c in cells], "; ".join(spelling.notes)


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["13,54", "7", "-0,5"], ["13.54", "7", "-0.5"]),
        (["1.234,56", "1.234", "12"], ["1234.56", "1234", "12"]),
        (["1,234.56", "1,234", "12"], ["1234.56", "1234", "12"]),
        (["1 234,56", "1\u202f234\u202f567,5", "3"], ["1234.56", "1234567.5", "3"]),
        (["1'234.50", "CHF 2’000.00"], ["1234.50", "2000.00"]),
        (["12,50-", "(3,00)", "−1,25", "+2,5"], ["-12.50", "-3.00", "-1.25", "2.5"]),
        (["€ 5,00", "7,50 €", "1,00 €"], ["5.00", "7.50", "1.00"]),
        (["5 %", "12,5%"], ["5", "12.5"]),
        (["1.234.567", "5"], ["1234567", "5"]),
        (["1,5E-3", "2,5e+2"], ["1.5E-3", "2.5e+2"]),
        (["13,54"] * 20 + ["auf Anfrage", "-", ""], ["13.54"] * 20 + ["auf Anfrage", "-", ""]),
    ],
)
def test_numbers_of_a_column_are_read_in_its_form(cells: list[str], wanted: list[str]) -> None:
    assert read(cells)[0] == wanted


@pytest.mark.parametrize(
    "cells",
    [
        ["007", "0123"],
        ["1.2.3", "1.10.2"],
        ["+49 170 123", "+49 171 456"],
        ["089 123 456"],
        ["5 nM", "3,5 uM"],
        ["$5", "€7"],
        ["5%", "7"],
        ["1.5", "2"],
        ["red, blue", "a,b"],
        ["10:37", "11:00"],
        ["12.34.56", "99"],
    ],
)
def test_what_is_no_number_for_certain_stays_as_it_is(cells: list[str]) -> None:
    assert read(cells)[0] == cells


def test_a_mark_that_may_mean_both_is_decided_by_the_table_and_said() -> None:
    unclear = ["1,234", "5,678"]
    assert read(unclear)[0] == ["1234", "5678"] and "no other shows" in read(unclear)[1]
    assert read(unclear, ";")[0] == ["1.234", "5.678"]
    assert read(unclear, price=["13,54", "2,5"])[0] == ["1.234", "5.678"]
    assert read(["1.234", "5.678"], price=["13,54", "2,5"])[0] == ["1234", "5678"]
    assert read(["1.234", "5.678"]) == (["1.234", "5.678"], "")


DATES = {
    "2026-01-31 10:37": "2026-01-31 10:37:00",
    "31.01.2026": "2026-01-31",
    "31.1.26, 10:37 Uhr": "2026-01-31 10:37:00",
    "1/31/2026 10:37 PM": "2026-01-31 22:37:00",
    "31/01/2026 12:05 a.m.": "2026-01-31 00:05:00",
    "2026/01/31 10:37:22.5": "2026-01-31 10:37:22.500000",
    "31 Jan 2026": "2026-01-31",
    "31-Jan-26": "2026-01-31",
    "Jan 31, 2026 10:37": "2026-01-31 10:37:00",
    "Saturday, 31. März 2026": "2026-03-31",
    "31 août 1999": "1999-08-31",
    "2026-01-31 10:37:22 +0100": "2026-01-31 10:37:22+01:00",
    "2026-01-31T10:37:22Z": "2026-01-31 10:37:22+00:00",
}


@pytest.mark.parametrize("cell", DATES)
def test_dates_in_the_usual_forms_are_read(cell: str) -> None:
    date = written_date(cell)
    assert date is not None and date.text("?") == DATES[cell]


@pytest.mark.parametrize(
    "cell", ["32.01.2026", "31.13.2026", "2026-02-30", "1.5", "10:37", "soon", "1/2", "12-34-5678"]
)
def test_what_is_no_day_is_none(cell: str) -> None:
    assert date_seconds(cell) is None


def test_whether_the_day_or_the_month_is_first_is_decided_by_the_column_then_by_the_table() -> None:
    assert read(["1/2/2026", "13/2/2026"])[0] == ["2026-02-01", "2026-02-13"]
    assert read(["1/2/2026", "2/13/2026"])[0] == ["2026-01-02", "2026-02-13"]
    assert read(["1/2/2026"], other=["13/2/2026"])[0] == ["2026-02-01"]
    assert read(["1/2/2026"], price=["13,54"])[0] == ["2026-02-01"]
    assert read(["01.02.2026"])[0] == ["2026-02-01"]
    cells, said = read(["1/2/2026", "3/4/2026"])
    assert cells == ["2026-01-02", "2026-03-04"] and "month first, and could be meant otherwise" in said
    assert "day first in 1 rows and their month first in 1" in read(["13/2/2026", "2/13/2026"])[1]


def test_the_order_is_looked_for_in_all_of_a_long_file(tmp_path: Path) -> None:
    """Its first thousand rows are of the first days of a month."""
    lines = [f"u{n % 7},i{n % 5},{1 + n // 1000:02}/03/2026" for n in range(14_000)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,date", *lines]))
    unusable = Unusable()
    rows = [row for batch in batches(named(tmp_path / "log.csv"), unusable) for row in batch.to_pylist()]
    assert rows[0]["date"] == "2026-03-01" and rows[-1]["date"] == "2026-03-14" and not unusable.notes


def test_numbers_know_their_unit() -> None:
    number = written_number("-1.234,50 €")
    assert number is not None and (number.text("."), number.unit) == ("-1234.50", "€")
