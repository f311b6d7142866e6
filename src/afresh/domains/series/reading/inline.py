"""Tables that are given as columns of values, in Python or in JSON, and not as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afresh.core import UserError

TableSource = str | Path | Mapping[str, Sequence[Any]]  # a file or folder, or values by the names of columns


def words_of(source: TableSource, name: str) -> str:
    """What a message calls the table that is given as the parameter `name`."""
    return f"`{name}`" if isinstance(source, Mapping) else str(source)


def arrow_table(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A table of Arrow of columns of equal length, in which None stands for what is missing. A column of several types
    becomes one of texts. Raises UserError for columns without rows, or of different lengths."""
    import pyarrow

    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or not any(lengths.values()):
        raise UserError(
            "A table in columns has as many values in each, and one row at least. "
            f"Given: {', '.join(f'{n} values of {name}' for name, n in lengths.items()) or 'no column'}."
        )

    def array(values: Sequence[Any]) -> Any:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            return pyarrow.array([None if v is None else str(v) for v in values])

    return pyarrow.table({name: array(values) for name, values in columns.items()})
