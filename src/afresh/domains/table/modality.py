"""Tables of mixed columns: each row is an item, and is learnt as a record of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afresh.core import Corpus, Item, Sniff, UserError
from afresh.data.encoder_file import load_encoder
from afresh.data.files import suffix_of, walk
from afresh.data.tables import TABLES
from afresh.data.tables.roles import is_prose
from afresh.data.tables.rows import read_heads
from afresh.domains.table.column_code import ColumnCode, fit_column
from afresh.domains.table.columns import choose_kind, rules_of
from afresh.domains.table.encoder import MOST_COLUMNS, TableEncoder
from afresh.domains.table.reading import ReadingOptions, read_rows
from afresh.domains.table.row import ROW

HEADS = 32  # files that are looked at until there are ROWS
ROWS = 20
SURE = 0.55  # above what other modalities say who know the table, but cannot learn it
ONLY_DATES = 0.5  # of a table without numbers, which could be a list of texts with their dates


def recognise(path: Path) -> Sniff:
    """How certain it is that a path holds a table of numbers and categories.

    Tables with sentences are texts, and those of one column are lists: neither is taken for a table unless it is asked
    for. Those with dates are tables, unless the dates are the equal steps of a series, which that modality recognises.
    """
    files = walk(path)[0]
    ours = [f for f in files if suffix_of(f.name) in TABLES]
    if not ours or 2 * len(ours) < len(files):
        return Sniff(0.0, f"{len(ours):,} of {len(files):,} files are tables")
    columns: dict[str, list[Any]] = {}
    for file, head in read_heads(ours[:HEADS]):
        if head.skipped:
            return Sniff(0.0, f"{file.name} has columns of lists or images")
        for name in head.columns:
            columns.setdefault(name, []).extend(row.get(name) for _, row in head.rows)
        if len(columns) and len(next(iter(columns.values()))) >= ROWS:
            break
    return of_columns(columns)


def of_columns(columns: dict[str, Sequence[Any]] | dict[str, list[Any]]) -> Sniff:
    texts = {n: [str(c).strip() for c in cells if c not in (None, "")] for n, cells in columns.items()}
    nested = next((n for n, cells in columns.items() if any(isinstance(c, list | dict) for c in cells)), None)
    if nested is not None:
        return Sniff(0.0, f"{nested!r} holds lists or objects")
    kinds = {name: choose_kind(name, cells).kind for name, cells in columns.items()}
    learnt = [name for name, kind in kinds.items() if kind is not None]
    prose = next((n for n in columns if kinds[n] != "number" and is_prose(n, texts[n])), None)
    if prose is not None:
        return Sniff(0.0, f"{prose!r} holds texts")
    if len(learnt) < 2 or not {"number", "date"} & set(kinds.values()):
        return Sniff(0.0, "it has fewer than two columns, or none of numbers or dates")
    sure = SURE if "number" in kinds.values() else ONLY_DATES
    return Sniff(sure, f"a table of {len(learnt)} columns of numbers, categories or dates")


class TableModality:
    """CSV, TSV, Excel, Parquet, JSON lines and SQLite tables, alone or in a folder of files with the same columns."""

    name = "table"
    kind = ROW
    options = ReadingOptions

    sniff = staticmethod(recognise)

    def read(self, path: Path, options: ReadingOptions) -> Corpus:
        """An Item for each row. Raises UserError if there is none, or for options that do not fit the table."""
        return read_rows(path, options)

    def fit(self, items: Sequence[Item], options: ReadingOptions) -> TableEncoder:
        """The tokens of each column, from training rows. Raises UserError without any, and for too many columns."""
        if not items:
            raise UserError("No row to train on: the training split is empty.")
        header = items[0].value.header
        if len(header.names) > MOST_COLUMNS:
            raise UserError(
                f"The table has {len(header.names):,} columns, and at most {MOST_COLUMNS:,} can be learnt. Leave some "
                "out: `data.leave_out=NAME,NAME`."
            )
        columns = list(zip(*(item.value.cells for item in items), strict=True))
        codes = [fit_column(*c) for c in zip(header.names, header.kinds, columns, strict=True)]
        rules = rules_of(dict(zip(header.names, columns, strict=True)), header.kinds)
        chosen = options.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return TableEncoder(
            columns=tuple(codes),
            rules=tuple(rules),
            options=chosen,
            notes=tuple(notes_of(codes)),
            forms=dict(header.forms),
        )

    def load(self, folder: Path) -> TableEncoder:
        return load_encoder(folder, TableEncoder, "tables")


MODALITY = TableModality()


def notes_of(codes: Sequence[ColumnCode]) -> list[str]:
    """What is to be known of the tokens of columns with very many categories."""
    return [
        f"{code.name!r}: the {len(code.own):,} most frequent categories have a token each, and {len(code.rare):,} rare "
        f"ones share {code.groups:,} tokens and are told apart by a second one"
        for code in codes
        if code.rare
    ]
