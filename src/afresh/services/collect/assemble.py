"""The parts of all sources become a data set: duplicates are left out, and items are held out.

Memory is some tens of bytes an item: what is compared lies in files, and rows are read again when they are written.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import events
from afresh.data.collected import ITEMS, LEAKAGE, REJECTED, SCHEMA
from afresh.data.storage.files import new_file
from afresh.services.collect.dataset_store import REJECTIONS, WORK, SourceParts, all_rows
from afresh.services.collect.exact_duplicates import Originals, firsts, read_ids
from afresh.services.collect.leakage import LEAKS, Leaks, Other
from afresh.services.collect.near.finder import Finder
from afresh.services.collect.record import EXCERPT, Rejection, people_of
from afresh.services.collect.rules.personal import PERSONAL
from afresh.services.collect.split_sides import SplitSides, border

ROWS, CHARACTERS = 1_000, 8 << 20  # of rows that are read and written at a time
SCRATCH = "scratch"  # in the folder of what is worked with

Row = dict[str, Any]


class Assembly(BaseModel):
    """How items become a data set. heldout: the share of what belongs together that is held out. split_by: what is
    never divided. near: whether near duplicates are left out, or kept on the side of the first. against: other data
    that must not be learnt from, as a benchmark. leaks: whether items that occur in it are kept or left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heldout: float = Field(default=0.1, ge=0, lt=1)
    split_by: Literal["group", "person", "cluster", "time"] = "group"
    near: Literal["drop", "keep"] = "drop"
    against: tuple[str, ...] = ()
    leaks: Literal["keep", "drop"] = "keep"


def assemble(
    folder: Path, sources: Sequence[SourceParts], choices: Assembly = Assembly(), others: Sequence[Other] = ()
) -> dict[str, Any]:
    """Write items.parquet, rejected.parquet and leakage.parquet; returns the digest of the items and the counts of what
    became of all.

    Of equal or nearly equal items the first is kept, in the order of the sources, so that sources that are added later
    only add. Raises UserError if items cannot be divided in the way that was chosen.
    """
    items, rejections = tables_of(sources)
    last = border(all_rows(items, ["time", "split"]), choices.heldout) if choices.split_by == "time" else None

    def written(sides: SplitSides) -> dict[str, Any]:
        scratch = folder / WORK / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        kept: Counter[str] = Counter()
        left: Counter[str] = Counter()
        personal: Counter[str] = Counter()
        digest = blake3()
        leaks = Leaks(others, scratch / "leaks") if others else None
        with (
            new_table(folder / ITEMS, SCHEMA) as out,
            new_table(folder / REJECTED, REJECTIONS) as refused,
            new_table(folder / LEAKAGE, LEAKS) as leaked,
        ):
            for row in all_rows(rejections):
                left[f"{row['stage']}/{row['rule']}"] += 1
                refused.write(row)
            for found, lines in distinct(items, scratch, choices, sides, leaks):
                for line in lines:
                    leaked.write(line)
                if isinstance(found, Rejection):
                    left[f"{found.stage}/{found.rule}"] += 1
                    refused.write(asdict(found))
                    continue
                del found["near"]
                kept[found["kind"]] += 1
                personal.update({what: int(n) for what, n in found["scores"] or () if what.startswith(PERSONAL)})
                digest.update(json.dumps(found, sort_keys=True, ensure_ascii=True).encode())
                out.write(found)
        shutil.rmtree(scratch, ignore_errors=True)
        common = {place: dict(counts) for place, counts in leaks.counts.items()} if leaks else {}
        counts = {"items": dict(kept), "left_out": dict(left), "leakage": common, "personal": dict(personal)}
        return {"digest": digest.hexdigest(), **counts}

    sides = SplitSides(choices.split_by, choices.heldout, last)
    made, better = written(sides), sides.better()
    return made if better is None else written(SplitSides(sides.by, better))


def tables_of(sources: Sequence[SourceParts]) -> tuple[list[Path], list[Path]]:
    """The files of items and of what was left out, in order."""
    pairs = [s.tables(name) for s in sources for name in s.names()]
    return [a for a, _ in pairs], [b for _, b in pairs]


def distinct(
    tables: Sequence[Path], scratch: Path, choices: Assembly, sides: SplitSides, leaks: Leaks | None
) -> Iterator[tuple[Row | Rejection, list[dict[str, Any]]]]:
    """The rows with their clusters and sides, or why they are left out: as duplicates or leaks. With each the lines of
    what it has in common with other data."""
    first = firsts(read_ids(tables))
    originals = Originals(first, scratch / "originals")
    finder = Finder(scratch / "near")
    add_prints(finder, tables, first)
    finder.sort()
    if leaks:
        add_prints(leaks.finder, leaks.tables)
        add_prints(leaks.finder, tables, first)
        leaks.sort()
    for number, rows in stretches(tables):
        events.progress(f"{number:,} of {len(first):,} items compared", "assembling", done=number, of=len(first))
        new = [k for k in range(len(rows)) if first[number + k] == number + k]
        for walk in (finder, leaks) if leaks else (finder,):
            walk.advance([rows[k] for k in new])
        place = {k: i for i, k in enumerate(new)}
        for k, row in enumerate(rows):
            if k not in place:
                reason = f"equal to {originals.where(int(first[number + k]))}"
                yield row_rejected(row, "duplicates", "exact", reason, first=row["id"]), []
                continue
            originals.seen(number + k, row["where"][:200])
            common = leaks.in_common(place[k]) if leaks else []
            if leaks and common and choices.leaks == "drop":
                reason = common[0].reason
                yield row_rejected(row, "leakage", common[0].how, reason), list(leaks.lines(row, common, True))
                continue
            made = judged(row, place[k], finder, choices.near, sides)
            kept = leaks and common and not isinstance(made, Rejection)
            yield made, list(leaks.lines(row, common, False)) if leaks and kept else []


def judged(row: Row, place: int, finder: Finder, near: str, sides: SplitSides) -> Row | Rejection:
    """A row that is not an exact duplicate."""
    matches = finder.matches(place)
    match = next(matches, None)
    if match and near == "drop":
        reason = f"{match[1]:.1%} equal to {match[0]['where']}"
        return row_rejected(row, "duplicates", "near", reason, first=match[0]["id"])
    row["cluster"] = match[0]["cluster"] if match else row["id"]
    row["split"] = sides.of(row)
    for head, similarity in [match, *matches] if match else ():
        if head["split"] != row["split"]:
            reason = f"{similarity:.1%} equal to {head['where']}, which is on the other side of the split"
            return row_rejected(row, "duplicates", "near", reason, first=head["id"])
    finder.keep(place, {"where": row["where"][:200], **{c: row[c] for c in ("id", "cluster", "split")}})
    sides.count(row)
    return row


def add_prints(finder: Finder, tables: Sequence[Path], first: NDArray[np.int32] | None = None) -> None:
    """Tell a finder what near duplicates of all rows are found by, but for exact duplicates."""
    number = 0
    for table in tables:
        with pq.ParquetFile(table) as file:
            for batch in file.iter_batches(ROWS, columns=["kind", "near"]):
                numbers = np.arange(number, number + len(batch))
                rows = batch if first is None else batch.filter(pa.array(first[numbers] == numbers))
                finder.add(rows.column("kind").to_pylist(), rows.column("near").to_pylist())
                number += len(batch)


def stretches(tables: Sequence[Path]) -> Iterator[tuple[int, list[Row]]]:
    """(number of the first, some rows), through all rows. Rows with long texts are fewer."""
    number, some, characters = 0, list[Row](), 0
    for row in all_rows(tables):
        some.append(row)
        characters += len(row["text"] or "")
        if len(some) >= ROWS or characters >= CHARACTERS:
            yield number, some
            number, some, characters = number + len(some), [], 0
    if some:
        yield number, some


def row_rejected(row: Row, stage: str, rule: str, reason: str, first: str = "") -> Rejection:
    """A row of the parts that was left out. first: of a duplicate, the id of the item that was kept."""
    excerpt, people = (row["text"] or "")[:EXCERPT], people_of(row["person"] or "", dict(row["extra"] or ()))
    about = (row["kind"], excerpt, people, row["id"], first, row["file"] or "")
    return Rejection(row["source"], row["where"], stage, rule, reason, *about)


@contextmanager
def new_table(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A writer of rows into a Parquet file, which takes the place of another one at the end of the block."""
    with new_file(path) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as file:
        writer = Writer(file, schema)
        yield writer
        writer.flush()


class Writer:
    """Writes rows into a Parquet file, some at a time."""

    def __init__(self, file: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.file, self.schema = file, schema
        self.rows: list[dict[str, Any]] = []
        self.characters = 0  # of their texts

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.characters += len(row.get("text") or "")
        if len(self.rows) >= ROWS or self.characters >= CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held."""
        if self.rows:
            self.file.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows, self.characters = [], 0
