"""What a data set has in common with other data that must not be learnt from, such as a benchmark: items that are equal
or nearly equal, and texts that share a run of words.

Other data that is compared with a data set: read like a source, without rules, into a folder that is removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from afresh.core import UserError, events
from afresh.data.files import FileError, named
from afresh.data.text.shingles import Hashes, shingles_of
from afresh.services.collect.dataset_store import all_rows
from afresh.services.collect.exact_duplicates import Ids, ids_of, read_ids
from afresh.services.collect.near.finder import Finder
from afresh.services.collect.near.texts import SEARCH, said
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import Fetched, Options, Source, source_of, tables
from afresh.services.collect.spill_file import Scratch

WORDS = 13  # of a run, of which one is enough: Brown et al. 2020, appendix C
COMMON = 10  # texts of the other data; a run that is in more of them is a phrase, not a part of one text
RUNS = 30_000_000  # that are remembered; if there are more, a half of them, a quarter, ...
SHOWN = 5  # texts of the other data that one item shares runs with

# against: the other data, as it was given. how: exact, near or overlap. share: similarity, or of an overlap the share
# of the other text's runs that are in the item.
WORDED = ("item", "where", "kind", "split", "against", "against_where", "how")
LEAKS = pa.schema([*((name, pa.string()) for name in WORDED), ("share", pa.float64()), ("left_out", pa.bool_())])


@dataclass(frozen=True)
class Other:
    """Other data: the place as it was given, and the files of its items."""

    place: str
    tables: Sequence[Path]


@dataclass(frozen=True)
class Leak:
    """What an item has in common with an item of other data. how: exact, near, or overlap of runs of words."""

    against: str
    against_where: str
    how: str
    share: float

    @property
    def reason(self) -> str:
        if self.how == "overlap":
            return f"{self.share:.1%} of the runs of {WORDS} words of {self.against_where} of {self.against} are in it"
        return f"{self.share:.1%} equal to {self.against_where} of {self.against}"


class Leaks:
    """In the order of the items: `advance` to the next rows, then ask for what each has `in_common`."""

    def __init__(self, others: Sequence[Other], scratch: Path) -> None:
        self.places = [other.place for other in others]
        self.tables = [table for other in others for table in other.tables]
        self.heads = Scratch(scratch / "heads")
        for place, row in self._rows(others, ["where"]):
            self.heads.put({"place": place, "where": row["where"][:200]}, np.zeros(0, np.uint8))
        ids = read_ids(self.tables)
        self.order = np.lexsort((ids[:, 1], ids[:, 0]))
        self.ids: Ids = ids[self.order]
        self.finder = Finder(scratch / "near")
        self.runs, self.owners, self.lengths = self._overlaps(others)
        self.now: list[list[Leak]] = []
        self.counts: dict[str, Counter[str]] = {place: Counter() for place in self.places}

    @staticmethod
    def _rows(others: Sequence[Other], columns: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number, other in enumerate(others):
            for row in all_rows(other.tables, columns):
                yield number, row

    def _overlaps(self, others: Sequence[Other]) -> tuple[Hashes, NDArray[np.int32], NDArray[np.int64]]:
        """The runs of all texts, sorted, the first text that each is in, and how many each text has."""
        runs, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        total, part = 0, np.uint64(0)
        for number, (_, row) in enumerate(self._rows(others, ["kind", "text"])):
            if row["kind"] not in SEARCH.kinds:
                continue
            found = shingles_of([said(row["kind"], row["text"] or "")], WORDS)[0]
            found = found[found & part == 0]
            runs.append(found)
            owners.append(np.full(len(found), number, np.int32))
            total += len(found)
            if total > RUNS:
                part = part << np.uint64(1) | np.uint64(1)
                chosen = [r & part == 0 for r in runs]
                owners = [o[c] for o, c in zip(owners, chosen, strict=True)]
                runs = [r[c] for r, c in zip(runs, chosen, strict=True)]
                total = sum(map(len, runs))
        if part:
            events.note(
                f"Of the runs of {WORDS} words of {', '.join(self.places)}, one in {int(part) + 1} is looked for."
            )
        self.part = part
        every, owner = np.concatenate(runs), np.concatenate(owners)
        distinct, first, times = np.unique(every, return_index=True, return_counts=True)
        few = times <= COMMON
        owned = owner[first[few]]
        return distinct[few], owned, np.bincount(owned, minlength=len(self.ids)).astype(np.int64)

    def sort(self) -> None:
        """After the kinds and prints of all items were added to `finder`, behind those of the other data."""
        self.finder.sort()
        number, waiting = 0, list[Mapping[str, Any]]()
        rows = all_rows(self.tables, ["kind", "text", "near"])
        while True:
            waiting = [row for row, _ in zip(rows, range(1_000), strict=False)]
            if not waiting:
                return
            self.finder.advance(waiting)
            for i in range(len(waiting)):
                self.finder.keep(i, {"number": number + i})
            number += len(waiting)

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.finder.advance(rows)
        self.now = [[] for _ in rows]
        if not rows or not len(self.ids):
            return
        ids = ids_of([row["id"] for row in rows])
        places = np.minimum(np.searchsorted(self.ids[:, 0], ids[:, 0]), len(self.ids) - 1)
        for i in np.flatnonzero((self.ids[places] == ids).all(1)).tolist():
            self.now[i].append(self._leak(int(self.order[places[i]]), "exact", 1.0))
        texts = [i for i, row in enumerate(rows) if row["kind"] in SEARCH.kinds]
        runs = shingles_of([said(rows[i]["kind"], rows[i]["text"] or "") for i in texts], WORDS)
        for i, found in zip(texts, runs, strict=True):
            self.now[i] += self._shared(found)

    def _shared(self, found: Hashes) -> Iterator[Leak]:
        if not len(self.runs):
            return
        at = np.minimum(np.searchsorted(self.runs, found), len(self.runs) - 1)
        numbers, times = np.unique(self.owners[at[self.runs[at] == found]], return_counts=True)
        shares = times / self.lengths[numbers]
        for k in np.argsort(-shares, kind="stable")[:SHOWN].tolist():
            yield self._leak(int(numbers[k]), "overlap", float(shares[k]))

    def _leak(self, number: int, how: str, share: float) -> Leak:
        head, _ = self.heads.get(number)
        return Leak(self.places[head["place"]], head["where"], how, share)

    def in_common(self, row: int) -> list[Leak]:
        """Of each item of the other data that a row has something in common with, the strongest: exact, then near."""
        near = [self._leak(head["number"], "near", share) for head, share in self.finder.matches(row)]
        strongest = dict[tuple[str, str], Leak]()
        exact = [leak for leak in self.now[row] if leak.how == "exact"]
        for leak in [*exact, *near, *self.now[row]]:
            strongest.setdefault((leak.against, leak.against_where), leak)
        return list(strongest.values())

    def lines(self, row: Mapping[str, Any], found: Sequence[Leak], left_out: bool) -> Iterator[dict[str, Any]]:
        """The rows of a report for one item, which is counted for each place once."""
        for place in self.places:
            hows = [leak.how for leak in found if leak.against == place]
            if hows:
                self.counts[place][hows[0]] += 1
        for leak in found:
            columns = {"item": row["id"], "where": row["where"], "kind": row["kind"], "split": row["split"]}
            yield {**columns, **asdict(leak), "left_out": left_out}


TABLES = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


def other_source(place: str) -> Source:
    """What reads other data: of a table every row is a text, all of its columns that are texts, since any of them may
    be what a model is asked. Raises UserError for a place that cannot be read."""
    path = Path(place)
    return TABLE if path.is_file() and path.suffix.lower() in TABLES else source_of(place)


def find(place: str, options: Any, fetched: Fetched) -> Iterator[Found | Rejection]:
    path = Path(place)
    try:
        for number, row in tables.table(named(path), tables.TableOptions())[1]:
            if isinstance(row, str):
                raise FileError(f"row {number:,}: {row}")
            text = "\n".join(strings(row))
            if text.strip():
                yield Found(f"{path.name}: row {number}", text)
    except (OSError, FileError) as error:
        raise UserError(
            f"{place} cannot be read as a table: {error}. Mend the file, or give other data: a table of "
            f"{', '.join(sorted(TABLES))}, a folder, or another data set.",
            "not_a_table",
        ) from None


def strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, in order; not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from strings(inner)


def describe(place: str, options: Any) -> list[str]:
    return [f"{place}: a table of {Path(place).stat().st_size:,} bytes"]


TABLE = Source("other table", "a table", lambda place: False, find, describe, Options)
