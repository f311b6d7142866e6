"""Rows with given values, and missing values filled in, by a small run on a table with rules."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

import afresh
from afresh import Model
from afresh.core import UserError
from afresh.domains.table.column_code import fit_column
from afresh.domains.table.draw import outside, spread
from afresh.domains.table.row import Cell, Kind
from afresh.faces.cli import run as command
from tests.domains.table.people import CODES, NAMES, people, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("people")
    path = write(folder / "people.csv", people(1500))
    return afresh.train(path, modality="table", steps=400, out=folder / "run", quiet=True)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_samples_are_written_as_a_table_with_the_columns_of_the_data(model: Model, tmp_path: Path) -> None:
    samples = model.sample(200, seed=1)
    samples.save(tmp_path / "out")
    rows = table((tmp_path / "out" / "samples.csv").read_bytes())
    assert len(rows) == 200 and tuple(rows[0]) == NAMES
    assert all(model.run.encoder.valid(v) for v in samples)
    assert all(18 <= int(r["age"]) <= 90 and len(r["since"]) == 10 for r in rows)
    assert 0.02 < sum(not r["height"] for r in rows) / 200 < 0.25
    assert all(CODES[r["town"]] == r["code"] for r in rows), "a column that another determines is what this says"
    assert list(model.sample(200, seed=1)) == list(samples)


def test_of_many_rows_a_few_are_shown_and_where_all_are_is_said(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command(["sample", str(model.path), "-n", "60", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    said = "".join((shown.out + shown.err).split())
    assert shown.out.count("age ") == 8 and f"60samplesin{out}" in said and f"and52morein{out}" in said
    assert len(table((out / "samples.csv").read_bytes())) == 60


def test_rows_have_what_is_given_and_the_rest_follows(model: Model) -> None:
    found = afresh.verb("rows")(model, 150, given={"town": "Kiel", "age": "33", "spent": "0"}, seed=2)
    assert {r.cells[0] for r in found.rows} == {33} and {r.cells[2] for r in found.rows} == {"Kiel"}
    assert all(r.cells[3] == "C" for r in found.rows)
    backwards = afresh.verb("rows")(model, 50, given={"code": "A"})
    assert {(r.cells[2], r.cells[3]) for r in backwards.rows} == {("Ulm", "A")}
    assert sum(r.cells[5] == "no" for r in found.rows) > 135
    assert not found.notes and table(found.files()["rows.csv"])[0]["age"] == "33"


@pytest.mark.parametrize(
    ("kind", "cells", "within", "beyond"),
    [
        ("number", [5, 7, 9] * 10, [5, 6, 9], [4, -9, 10]),
        ("date", ["2020-01-02", "2020-03-04"] * 10, ["2020-02-01"], ["2020-01-01", "2020-03-05"]),
        ("category", ["a", "b"] * 10, ["a", None], []),
    ],
)
def test_a_value_below_or_above_training_is_noted(
    kind: Kind, cells: list[Cell], within: list[Cell], beyond: list[Cell]
) -> None:
    code = fit_column("x", kind, cells)
    assert not any(outside(code, cell) for cell in within)
    assert all(f"x={cell} is outside of what training has" in outside(code, cell) for cell in beyond)


def test_rows_are_written_as_parquet(model: Model) -> None:
    found = afresh.verb("rows")(model, 20, format="parquet")
    read = pyarrow.parquet.read_table(io.BytesIO(found.files()["rows.parquet"]))
    assert read.num_rows == 20 and tuple(read.column_names) == NAMES
    assert str(read.schema.field("age").type) == "int64"


def test_missing_values_are_given_and_are_filled(model: Model, tmp_path: Path) -> None:
    found = afresh.verb("rows")(model, 30, given={"height": ""}, seed=3)
    assert {r.cells[1] for r in found.rows} == {None}
    rows = [{**r, "code": "", "note": "kept", **({"town": ""} if i % 2 else {})} for i, r in enumerate(people(40, 7))]
    path = write(tmp_path / "holes.csv", rows)
    filled = afresh.verb("impute")(model, path, draws=5, seed=4)
    tables = [table(filled.files()[f"imputed-{i}.csv"]) for i in range(1, 6)]
    assert all(r[name] for t in tables for r in t for name in NAMES)
    assert all(r["note"] == "kept" for t in tables for r in t)
    known = [(i, r) for i, r in enumerate(rows) if r["town"]]
    assert sum(t[i]["code"] == CODES[str(r["town"])] for t in tables for i, r in known) > 0.9 * 5 * len(known)
    assert all(t[i][n] == str(r[n]) for t in tables for i, r in enumerate(rows) for n in ("age", "since", "spent"))
    assert Counter(c for _, c, _ in filled.filled)["code"] == 40
    assert any("'note'" in n for n in filled.notes)


def test_spread_of_draws() -> None:
    assert spread([1.0, 3.0]) == {"drawn": 1.0, "middle": 2.0, "spread": 1.0}
    assert spread(["a", "b", "b", "b"]) == {"drawn": "a", "middle": "b", "spread": 0.75}


BAD = {
    "a column that does not exist": ({"wage": "3"}, "No column 'wage'.*age, height"),
    "a category that does not exist": ({"town": "Rome"}, "no category 'Rome'.*'Ulm'"),
    "a text for a number": ({"age": "old"}, "'old' is not a number"),
    "missing where nothing is": ({"age": ""}, "no missing value in training"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_training_does_not_have_is_refused(case: str, model: Model) -> None:
    given, why = BAD[case]
    with pytest.raises(UserError, match=why):
        afresh.verb("rows")(model, 5, given=given)


def test_other_bad_requests_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="csv or parquet"):
        afresh.verb("rows")(model, 5, format="xls")
    with pytest.raises(UserError, match="nothing to fill"):
        afresh.verb("impute")(model, write(tmp_path / "a.csv", [{"age": 30, "town": "Ulm"}]))
    with pytest.raises(UserError, match="none of the columns"):
        afresh.verb("impute")(model, write(tmp_path / "b.csv", [{"wage": ""}, {"wage": "1"}]))
    with pytest.raises(UserError, match="No file"):
        afresh.verb("impute")(model, tmp_path / "absent.csv")
    found = afresh.verb("rows")(model, 5, given={"age": "120"})
    assert "outside of what training has (18 to 90)" in found.notes[0]
