"""Tables as shops, labs, schools and offices export them are understood: their kind, columns, dates and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from afresh.data.files import DataFile, named
from afresh.data.prepare import claims
from afresh.data.tables.batches import batches
from afresh.data.tables.delimited import Unusable
from afresh.data.tables.numbers import as_number
from afresh.data.tables.rows import RowTable, read_head, read_table
from afresh.data.tables.times import seconds
from afresh.data.text.chat import chat_columns
from afresh.data.text.encodings import TextDecoder
from afresh.domains.exercises.columns import log_columns
from afresh.domains.interactions.event_tables import columns_of_head
from afresh.domains.interactions.modality import MODALITY as INTERACTIONS
from afresh.domains.interactions.modality import InteractionOptions
from afresh.domains.molecule.reading import smiles_column_of
from afresh.domains.text.reading import TextOptions, text_column
from tests.data.tables.exports import EXPORTS, GOODS, Export


def kind_of(path: Path) -> str:
    """Of the data, as `afresh train` finds it without being told."""
    claimed = claims(path)
    able = [m.name for s, m in claimed if s.score > 0]
    refused = [s.unsupported.kind for s, _ in claimed if s.unsupported is not None]
    return next(iter(able or refused), "nothing")


def roles_of(export: Export, table: RowTable) -> Mapping[str, str | None]:
    rows = [row for _, row in table.rows]
    if export.kind == "interactions":
        columns = columns_of_head(table)
        return {} if columns is None else {role: columns.get(role) for role in export.roles}
    if export.kind == "exercises":
        log = log_columns(rows, table.columns, {})
        return {} if isinstance(log, str) else {role: log.get(role) for role in export.roles}
    if export.kind == "molecule":
        return {"smiles": smiles_column_of(export.name, table, None)}
    if export.kind == "text":
        form = chat_columns(table.columns)
        return {"text": ", ".join(form.columns) if form else text_column(export.name, table, TextOptions())}
    return {}


def values_of(rows: Sequence[Mapping[str, Any]], column: str, count: int) -> list[Any]:
    return [row.get(column) for row in rows[:count]]


def iso(value: float) -> str:
    return datetime.fromtimestamp(value, UTC).isoformat()


def whole(file: DataFile, export: Export) -> RowTable:
    suffix = Path(export.name).suffix
    return read_table(suffix, export.content, 1, lambda raw: TextDecoder().decode(export.name, raw))


def in_batches(file: DataFile) -> list[dict[str, Any]]:
    return [row for batch in batches(file, Unusable()) for row in batch.to_pylist()]


@pytest.mark.parametrize("export", EXPORTS, ids=[e.name for e in EXPORTS])
def test_an_export_is_understood(export: Export, tmp_path: Path) -> None:
    (tmp_path / export.name).write_bytes(export.content)
    file = named(tmp_path / export.name)
    head = read_head(file)
    ways = {"head": [r for _, r in head.rows], "whole": [r for _, r in whole(file, export).rows],
            "batches": in_batches(file)}  # fmt: skip
    assert kind_of(tmp_path / export.name) == export.kind
    for way, rows in ways.items():
        assert (way, list(dict.fromkeys(n for row in rows for n in row))) == (way, list(export.columns))
        assert (way, len(rows)) == (way, export.rows)
        for column, dates in export.dates.items():
            found, _ = seconds(values_of(rows, column, len(dates)))
            wanted = [datetime.fromisoformat(d).replace(tzinfo=UTC).isoformat() for d in dates]
            assert (way, column, [iso(v) for v in found]) == (way, column, wanted)
            assert (way, len(rows)) == (way, sum(v == v for v in seconds(values_of(rows, column, len(rows)))[0]))
        for column, numbers in export.numbers.items():
            read = [as_number(v) for v in values_of(rows, column, len(numbers))]
            assert (way, column, read) == (way, column, [pytest.approx(n, abs=0.005) for n in numbers])
    assert roles_of(export, head) == export.roles


@pytest.mark.parametrize("export", [e for e in EXPORTS if e.said], ids=[e.name for e in EXPORTS if e.said])
def test_what_is_no_row_of_a_table_is_said(export: Export, tmp_path: Path) -> None:
    (tmp_path / export.name).write_bytes(export.content)
    unusable = Unusable()
    list(batches(named(tmp_path / export.name), unusable))
    table = whole(named(tmp_path / export.name), export)
    for way in ([*unusable.notes, *unusable.reasons], [*table.notes, *(reason for _, reason in table.bad)]):
        for words in export.said:
            assert words in "; ".join(way)


def test_the_times_of_a_shop_decide_what_is_held_out(tmp_path: Path) -> None:
    """Without them the last event of each user would be, which flatters."""
    (table,) = (e for e in EXPORTS if e.name == "shop.csv")
    (tmp_path / table.name).write_bytes(table.content)
    corpus = INTERACTIONS.read(tmp_path / table.name, InteractionOptions())
    assert any(note.startswith("held out: the 6 events after 2026-02-0") for note in corpus.notes)
    train = [i for i in corpus.items if i.split == "train"]
    catalogue = INTERACTIONS.fit(train, InteractionOptions()).catalogue
    cheap = {name for name, fits in zip(catalogue.ids, catalogue.where({"Price": "<30"}), strict=True) if fits}
    assert cheap == {goods for _, goods, price in GOODS if price < 30}
