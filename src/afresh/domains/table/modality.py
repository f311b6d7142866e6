"""Tables of mixed columns: each row is an item, and is learnt as a record of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afresh.core import Corpus, Item, Sniff, UserError
from afresh.data.encoder_file import load_encoder
from afresh.domains.table.column_code import ColumnCode, fit_column
from afresh.domains.table.columns import rules_of
from afresh.domains.table.encoder import MOST_COLUMNS, TableEncoder
from afresh.domains.table.reading import ReadingOptions, read_rows
from afresh.domains.table.recognise import recognise
from afresh.domains.table.row import ROW


class TableModality:
    """CSV, TSV, Excel, Parquet, JSON lines and SQLite tables, alone or in a folder of files with the same columns."""

    name = "table"
    kind = ROW
    options = ReadingOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the columns of the first rows."""
        return recognise(path)

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
        return TableEncoder(columns=tuple(codes), rules=tuple(rules), options=chosen, notes=tuple(notes_of(codes)))

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
