"""Samples have dates and numbers as the table that was learnt has them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from afresh.data.tables.spelling import forms_of, in_form, order_in, rewritten, shared_forms, spelling_of_cells
from afresh.domains.table.draw import DrawnRows, given_cell
from afresh.domains.table.encoder import TableEncoder
from afresh.domains.table.modality import MODALITY
from afresh.domains.table.reading import ReadingOptions, read_rows
from afresh.domains.table.row import ROW, Row, as_csv, as_parquet, decode
from tests.domains.table.people import write

FORMS = (
    "%d.%m.%Y",
    "%Y/%m/%d %H:%M",
    "%b %-d, %Y",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S+01:00",
    "%Y-%m-%d %H:%M:%S.%L-0530",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%-m/%-d/%Y",
    "%Y%m%d",
    "%d/%m/%y",
    "%A, %d %B %Y",
    "%d-%^b-%Y",
    "%d/%m/%Y %I:%M%#p",
    "%m/%d/%Y %-I:%M %p",
    "%d.%m.%Y, %H:%M Uhr",
)
# With a day above 12, the column shows which of its numbers are days.
MOMENTS = st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1)), min_size=1, max_size=20).map(
    lambda found: [*found, datetime(2021, 11, 23, 14, 35, 7, 123_456), datetime(2022, 5, 3, 9, 5)]
)


@pytest.mark.parametrize("form", FORMS)
@given(moments=MOMENTS)
@settings(max_examples=25, deadline=None)
def test_dates_in_one_form_are_found_and_written_in_it_again(form: str, moments: list[datetime]) -> None:
    cells = [in_form(m, form) for m in moments]
    spelling = spelling_of_cells({"x": cells})
    found = shared_forms(cells, spelling.dates.get("x", "?"), None)
    assert found is not None and found[0] == form
    read = spelling.reader("x") if spelling.columns else str
    assert [rewritten(read(cell), form) for cell in cells] == cells


@given(moments=MOMENTS, forms=st.lists(st.sampled_from(FORMS), min_size=2, max_size=2, unique=True))
@settings(max_examples=50, deadline=None)
def test_dates_in_two_forms_have_none_in_common(moments: list[datetime], forms: list[str]) -> None:
    cells = [in_form(m, forms[i % 2]) for i, m in enumerate(moments)]
    known = shared_forms(cells[:1], order_in(forms[0]), None)
    assert shared_forms(cells[1:], order_in(forms[0]), known) == []


def test_a_missing_date_leaves_the_form_open_and_a_text_has_none() -> None:
    assert shared_forms(["", None, "NA"], "?", None) is None
    assert shared_forms(["soon"], "?", None) == []
    assert forms_of("2025-11-03T14:05:00.123456789", datetime(2025, 11, 3, 14, 5, 0, 123_456)) == []


def test_a_date_in_utc_is_written_in_the_zone_of_its_form() -> None:
    moment = datetime(2025, 11, 3, 23, 30, tzinfo=UTC).isoformat(" ")
    assert rewritten(moment, "%d.%m.%Y %H:%M+01:00") == "04.11.2025 00:30+01:00"
    assert rewritten(moment, "%Y-%m-%dT%H:%MZ") == "2025-11-03T23:30Z"


def fitted(folder: Path, form: str) -> tuple[TableEncoder, list[Row], list[str]]:
    """An encoder of a table with dates in a form, rows of random tokens, and the dates of the table."""
    start = datetime(2024, 1, 1, 12, 30)
    dates = [in_form(start + timedelta(hours=31 * i), form) for i in range(120)]
    rows = [{"when": d, "price": f"{100 + i * 1.7:.1f}", "visits": i % 9} for i, d in enumerate(dates)]
    corpus = read_rows(write(folder / "t.csv", rows), ReadingOptions())
    encoder = MODALITY.fit(corpus.items, ReadingOptions())
    encoder.save(folder)
    encoder = MODALITY.load(folder)
    sizes = torch.tensor(encoder.sizes)
    tokens = (torch.rand(200, len(sizes), generator=torch.Generator().manual_seed(0)) * (sizes - 2)).long() + 2
    return encoder, encoder.decode(tokens + torch.from_numpy(encoder.starts)), dates


@pytest.mark.parametrize("form", FORMS)
def test_samples_have_the_form_of_the_data_in_csv_on_screen_in_json_and_in_parquet(form: str, tmp_path: Path) -> None:
    encoder, rows, dates = fitted(tmp_path, form)
    cells = [r["when"] for r in csv.DictReader(io.StringIO(as_csv(rows).decode()))]
    assert len(shared_forms([*dates, *cells], order_in(form), None) or ()) >= 1, cells[:3]
    drawn = DrawnRows(rows, "csv")
    assert [r["when"] for r in drawn.json()["rows"]] == cells
    assert [json.loads(ROW.encode(r))["when"] for r in rows] == cells
    assert f"when {cells[0]}" in ROW.describe(rows[0])
    assert parquet.read_table(io.BytesIO(as_parquet(rows))).column("when").to_pylist() == cells
    again = [decode(ROW.encode(r)) for r in rows]
    assert torch.equal(encoder.tokens(again), encoder.tokens(rows)), "rows that were written are read as the same"
    code = encoder.columns[0]
    assert given_cell(code, cells[0], encoder.forms.get("when", "")) == encoder.ordered(again[0]).cells[0]


def test_numbers_have_the_digits_that_they_had_and_counts_are_not_below_0(tmp_path: Path) -> None:
    _, rows, _ = fitted(tmp_path, "%d.%m.%Y")
    table = parquet.read_table(io.BytesIO(as_parquet(rows)))
    assert str(table.schema.field("price").type) == "double" and str(table.schema.field("visits").type) == "int64"
    assert all(len(repr(p).partition(".")[2]) == 1 for p in table.column("price").to_pylist())
    assert min(table.column("visits").to_pylist()) >= 0


def test_numbers_of_32_bits_keep_their_digits(tmp_path: Path) -> None:
    prices = np.array([327.1 + i * 0.7 for i in range(50)], np.float32).round(1)
    parquet.write_table(pyarrow.table({"price": prices, "n": [i % 3 for i in range(50)]}), tmp_path / "t.parquet")
    corpus = read_rows(tmp_path / "t.parquet", ReadingOptions())
    assert corpus.items[0].value.cells[0] == 327.1
    assert MODALITY.fit(corpus.items, ReadingOptions()).columns[0].decimals == 1


def test_mixed_forms_are_iso_and_said(tmp_path: Path) -> None:
    rows = [
        {"when": f"{1 + i % 28:02}.11.2025" if i % 2 else f"2025-11-{1 + i % 28:02}", "n": i % 5} for i in range(60)
    ]
    corpus = read_rows(write(tmp_path / "t.csv", rows), ReadingOptions())
    assert "dates of 'when' are not all in one known form: samples write them as 2026-01-31" in corpus.notes
    assert json.loads(ROW.encode(corpus.items[1].value))["when"] == "2025-11-02"


def test_an_encoder_without_forms_opens_and_keeps_its_bytes(tmp_path: Path) -> None:
    fitted(tmp_path, "%Y-%m-%d")
    before = (tmp_path / "encoder.json").read_bytes()
    assert b"forms" not in before
    MODALITY.load(tmp_path).save(tmp_path)
    assert (tmp_path / "encoder.json").read_bytes() == before
