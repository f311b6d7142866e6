"""Tables of recommendations, a row each, in the form that the name of the file asks for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from afresh.core import UserError
from afresh.data.storage.files import free_bytes, new_file
from afresh.domains.interactions.recommend import Recommendation

COLUMNS = ("user", "place", "item", "title", "probability", "drawn")
FORMS, VOTES = (".parquet", ".csv", ".jsonl"), (".jsonl",)  # of lists, and of votes
ROWS = 65_536  # that are held

Row = tuple[str, int, str, str, float, float]


def check_form(file: Path, forms: Sequence[str] = FORMS) -> str:
    """The suffix of a file. Raises UserError if it stands for none of the forms."""
    suffix = file.suffix.lower()
    if suffix not in forms:
        raise UserError(
            f"The ending of {file} says in which form it is written, and {suffix or 'none'!r} is not accepted. Choose "
            f"{' or '.join(forms)}, as {file.with_suffix(forms[-1])}.",
            "unknown_form",
        )
    return suffix


def write_lists(file: Path, users: Sequence[str], lists: Iterable[Sequence[Recommendation]]) -> int:
    """A table with a row for each recommendation: user, place, item, title, probability, drawn. Returns the number of
    rows. Raises UserError if it cannot be written, or if the form is none of FORMS."""
    suffix = check_form(file)
    rows = (
        (user, place, r.item, r.title, r.probability, r.drawn)
        for user, found in zip(users, lists, strict=True)
        for place, r in enumerate(found, 1)
    )
    count = 0
    write = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_json_lines}[suffix]
    try:
        with new_file(file) as stream:
            for size in write(stream, iter(lambda: list(islice(rows, ROWS)), [])):
                count += size
    except OSError as e:
        raise UserError(
            f"Could not write {file}: {e.strerror or e}; {free_bytes(file.parent):,} bytes are free. Make room or "
            "choose another place."
        ) from e
    return count


def _write_parquet(stream: IO[bytes], parts: Iterator[list[Row]]) -> Iterator[int]:
    import pyarrow
    from pyarrow import parquet

    text, real = pyarrow.string(), pyarrow.float64()
    schema = pyarrow.schema(list(zip(COLUMNS, (text, pyarrow.int64(), text, text, real, real), strict=True)))
    with parquet.ParquetWriter(stream, schema, compression="zstd") as writer:
        for part in parts:
            columns: list[Sequence[Any]] = list(zip(*part, strict=True))
            writer.write_table(pyarrow.table(dict(zip(COLUMNS, columns, strict=True)), schema))
            yield len(part)


def _write_csv(stream: IO[bytes], parts: Iterator[list[Row]]) -> Iterator[int]:
    text = io.TextIOWrapper(stream, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in parts:
        writer.writerows(part)
        yield len(part)
    text.detach()  # writes what is left, and does not close the stream


def _write_json_lines(stream: IO[bytes], parts: Iterator[list[Row]]) -> Iterator[int]:
    for part in parts:
        lines = (json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n" for row in part)
        stream.write("".join(lines).encode())
        yield len(part)
