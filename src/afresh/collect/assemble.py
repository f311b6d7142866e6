"""The parts of all sources become a data set: duplicates are left out, and items are held out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from afresh.collect.record import EXCERPT, Rejection
from afresh.collect.store import REJECTIONS, SourceParts, all_rows
from afresh.core.files import sync_folder
from afresh.data.collected import ITEMS, REJECTED, SCHEMA
from afresh.data.split import share

ROWS = 1_000  # that are written at a time
HELD_OUT = 0.1  # of the groups


def assemble(folder: Path, sources: Sequence[SourceParts], heldout: float = HELD_OUT) -> dict[str, Any]:
    """Write items.parquet and rejected.parquet; returns the digest of the items and the counts of what became of all.

    Of equal items the first is kept, in the order of the sources, so that sources that are added later only add.
    """
    items, rejections = tables_of(sources)
    kept: Counter[str] = Counter()
    left: Counter[str] = Counter()
    digest = blake3()
    with Writer(folder / ITEMS, SCHEMA) as out, Writer(folder / REJECTED, REJECTIONS) as refused:
        for row in all_rows(rejections):
            left[f"{row['stage']}/{row['rule']}"] += 1
            refused.write(row)
        for row in distinct(items, refused, left):
            row["cluster"] = row["cluster"] or row["id"]
            row["split"] = row["split"] or side(row, heldout)
            kept[row["kind"]] += 1
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=True).encode())
            out.write(row)
    return {"digest": digest.hexdigest(), "items": dict(kept), "left_out": dict(left)}


def tables_of(sources: Sequence[SourceParts]) -> tuple[list[Path], list[Path]]:
    """The files of items and of what was left out, in order."""
    pairs = [s.tables(name) for s in sources for name in s.names()]
    return [a for a, _ in pairs], [b for _, b in pairs]


def distinct(tables: Sequence[Path], refused: Writer, left: Counter[str]) -> Iterator[dict[str, Any]]:
    """The first row of each content; the others are left out."""
    seen: dict[bytes, str] = {}
    for row in all_rows(tables):
        key = bytes.fromhex(row["id"])[:16]
        if key in seen:
            left["duplicates/exact"] += 1
            reason = f"equal to {seen[key]}"
            refused.write(asdict(row_rejected(row, "duplicates", "exact", reason, first=row["id"])))
            continue
        seen[key] = row["where"][:200]
        yield row


def row_rejected(row: dict[str, Any], stage: str, rule: str, reason: str, first: str = "") -> Rejection:
    """A row of the parts that was left out. first: of a duplicate, the id of the item that was kept."""
    excerpt = (row["text"] or "")[:EXCERPT]
    about = (row["kind"], excerpt, row["person"] or "", row["id"], first, row["file"] or "")
    return Rejection(row["source"], row["where"], stage, rule, reason, *about)


def side(row: dict[str, Any], heldout: float) -> str:
    """The side of the split: by the group of an item or else by its cluster, so that none is on both sides."""
    return "validation" if share(row["group"] or row["cluster"], "split") < heldout else "train"


class Writer:
    """Writes rows into a Parquet file beside the place of another, and puts it there at the end of the block."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self.aside = path.with_name(f".{path.name}.tmp")
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> Writer:
        self.file = pq.ParquetWriter(self.aside, self.schema, compression="zstd")
        return self

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        self.file.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows = []

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self.rows:
            self._flush()
        self.file.close()
        if kind is None:
            with self.aside.open("rb+") as file:
                os.fsync(file.fileno())
            self.aside.replace(self.path)
            sync_folder(self.path.parent)
        else:
            self.aside.unlink(missing_ok=True)
