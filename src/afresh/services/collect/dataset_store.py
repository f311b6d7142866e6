"""The folder of a data set while it is made: parts, which are whole or absent, contents by their hash, and a journal.

dataset.json  items.parquet  rejected.parquet    what is read
blobs/ab/cdef....png                             contents of items that are files, by BLAKE3
work/journal.jsonl                               what was done, a line each, with the keys of sources, not their places
work/SOURCE/000000.parquet, .rejected.parquet, .json    a batch of what a source found; the last says it is whole
work/SOURCE/fetched.jsonl, raw/                  what was fetched from elsewhere, so that it is not fetched again
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from afresh.core import UserError
from afresh.data.collected import BLOBS, SCHEMA
from afresh.data.files import check_links
from afresh.data.storage.files import CANNOT_WRITE, append_lines, free_bytes, new_file, replace_file
from afresh.data.storage.lock import open_locked
from afresh.services.collect.deletion_marks import FORGOTTEN, WHY, mark
from afresh.services.collect.process import SourcePart
from afresh.services.collect.record import Record, Rejection, encodable

WORK, JOURNAL, LOCK = "work", "journal.jsonl", "lock"
KEY = re.compile("[0-9a-f]{12}")  # of a source, which names its folder
PARTS = SCHEMA.append(pa.field("near", pa.binary()))  # of the items of a part
REJECTIONS = pa.schema([(f.name, pa.string()) for f in fields(Rejection)])


class Store:
    """The folder of a data set that one process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises UserError if another process is writing the data set, if it cannot be written, or if it has a link
        that leads out of it."""
        check_links(self.folder, "data set")
        work = self.folder / WORK
        try:
            work.mkdir(parents=True, exist_ok=True)
            lock = open_locked(work / LOCK)
        except BlockingIOError:
            raise UserError(
                f"Another process is writing {self.folder}. Wait until it has ended.", "data_set_in_use"
            ) from None
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}. Choose another folder.") from None
        with os.fdopen(lock):
            for rest in (*self.folder.glob(".*.tmp"), *work.glob("*/.*.tmp")):  # of a process that was killed
                rest.unlink(missing_ok=True)
            yield

    def note(self, what: str, **facts: Any) -> None:
        """Append a line to the journal."""
        line = json.dumps({"time": round(time.time(), 3), "what": what, **facts}, ensure_ascii=False) + "\n"
        append_lines(self.folder / WORK / JOURNAL, line.encode())

    def parts(self, key: str) -> SourceParts:
        """What was collected from a source. Raises UserError for a key that would name another folder."""
        if KEY.fullmatch(key) is None:
            raise UserError(
                f"{self.folder} is damaged: {key[:100]!r} is not the key of a source. Restore a copy.", "damaged"
            )
        return SourceParts(self.folder, key)

    def put_blob(self, content: bytes, suffix: str) -> str:
        """Keep a content; returns its name in the folder."""
        name = blake3(content).hexdigest()
        path = self.folder / BLOBS / name[:2] / f"{name[2:]}{suffix}"
        if not path.exists():
            replace_file(path, content)
        return path.relative_to(self.folder).as_posix()


class SourceParts:
    """The parts of one source, and what was fetched for it."""

    def __init__(self, dataset: Path, key: str) -> None:
        self.store, self.folder = Store(dataset), dataset / WORK / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.fetched = FetchedFiles(self.folder)

    def names(self) -> list[str]:
        """The parts that are whole, in order, without a gap."""
        out: list[str] = []
        while (self.folder / f"{len(out):06d}.json").is_file():
            out.append(f"{len(out):06d}")
        return out

    def write(self, number: int, part: SourcePart, consumed: int) -> None:
        """Write a part. `consumed`: how many things that the source found it was made of."""
        name = f"{number:06d}"
        rows = [_encodable(row_of(record, self.store)) for record in part.records]
        write_table(self.folder / f"{name}.parquet", pa.Table.from_pylist(rows, PARTS))
        rejections = [_encodable(asdict(r)) for r in part.rejections]
        for row in rejections:
            if (shown := part.shown.get(row["item"])) and shown.content is not None:
                row["file"] = self.store.put_blob(shown.content, shown.suffix)
        write_table(self.folder / f"{name}.rejected.parquet", pa.Table.from_pylist(rejections, REJECTIONS))
        facts = {
            "consumed": consumed,
            **{name: getattr(part, name) for name in ("found", "bytes", "seen", "changed")},
            "examples": [asdict(e) for e in part.examples],
        }
        replace_file(self.folder / f"{name}.json", json.dumps(facts, ensure_ascii=True).encode())

    def facts(self, name: str) -> dict[str, Any]:
        """The counts of a part."""
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def tables(self, name: str) -> tuple[Path, Path]:
        """The files of the items and of what was left out."""
        return self.folder / f"{name}.parquet", self.folder / f"{name}.rejected.parquet"

    def clear(self) -> None:
        """Remove the parts, but not what was fetched. The last goes first, and of each what says that it is whole: if
        this is interrupted, those that are left are whole."""
        for name in reversed(self.names()):
            (self.folder / f"{name}.json").unlink()
        for path in self.folder.glob("[0-9]*"):
            path.unlink()

    def remove(self) -> None:
        """Remove all of it."""
        self.clear()
        shutil.rmtree(self.folder)


REFUSED = {"rule": FORGOTTEN, "reason": WHY, "content": ""}  # of an address that was to be forgotten


class FetchedFiles:
    """What was fetched for a source: a line for each address, and its content by its hash. What stands before the last
    line that says "refreshed" is stale."""

    def __init__(self, folder: Path) -> None:
        self.lines, self.raw = folder / "fetched.jsonl", folder / "raw"
        self.whole = folder / "forgetting"  # there while something that was fetched as a whole holds what is forgotten
        self.lock = Lock()  # sources fetch in a thread of their own
        self.consumed = 0
        self.place = ""
        self.forgotten: Collection[str] = ()
        self.known: dict[str, dict[str, Any]] = {}
        self.old: dict[str, dict[str, Any]] = {}
        if self.lines.is_file():
            for line in self.lines.read_bytes().splitlines():
                try:
                    facts = json.loads(line)
                    if facts.pop("refreshed", False):
                        self.old, self.known = self.old | self.known, {}
                    else:
                        self.known[facts.pop("address")] = facts
                except (ValueError, KeyError):
                    continue  # a line that was cut off when the process was ended; its address is fetched again

    def _is_forgotten(self, address: str) -> bool:
        return bool(self.forgotten) and mark("where", self.place, address) in self.forgotten

    def facts(self, address: str) -> Mapping[str, Any] | None:
        """What is known of an address, if it was fetched and its content is there, or if it was to be forgotten."""
        if self._is_forgotten(address):
            return REFUSED
        facts = self.known.get(address)
        return facts if facts and (not facts["content"] or (self.raw / facts["content"]).exists()) else None

    def get(self, address: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """The content and the facts of an address, if it was fetched; no content of one that was to be forgotten."""
        if self._is_forgotten(address):
            return b"", REFUSED
        return self._read(self.known.get(address))

    def stale(self, address: str) -> tuple[bytes, Mapping[str, Any]] | None:
        """What was fetched of an address before the last `refresh`, to ask whether it changed."""
        return self._read(self.old.get(address))

    def refresh(self) -> None:
        """From now on, nothing counts as fetched."""
        self._append({"refreshed": True})
        self.old, self.known = self.old | self.known, {}

    def _read(self, facts: dict[str, Any] | None) -> tuple[bytes, Mapping[str, Any]] | None:
        if facts is None:
            return None
        try:
            return (self.raw / facts["content"]).read_bytes() if facts["content"] else b"", facts
        except OSError:
            return None

    def forget(self, places: Collection[str]) -> None:
        """Remove what was fetched from these addresses, and equal contents. Where something else was fetched, such as a
        whole repository, everything is: it is fetched again if it is needed."""
        self._keep(() if any(p not in self.known for p in places) else self._but(places))

    def forget_while_read(self, places: Collection[str]) -> frozenset[str]:
        """`forget` while the source is read, which may need what was fetched as a whole until its end: that is removed
        by `read_to_its_end`. Returns the addresses."""
        addresses = frozenset(p for p in places if p in self.known)
        if len(addresses) < len(places):
            self.whole.touch()
        if addresses:
            self._keep(self._but(addresses))
        return addresses

    def read_to_its_end(self) -> None:
        """Remove everything that was fetched if there was something in it that was to be forgotten."""
        if self.whole.exists():
            self._keep(())
            self.whole.unlink()

    def _but(self, places: Collection[str]) -> list[str]:
        gone = {self.known[p]["content"] for p in places} - {""}
        return [a for a, f in self.known.items() if a not in places and f["content"] not in gone]

    def _keep(self, addresses: Collection[str]) -> None:
        """Remove what was fetched from all other addresses, and what is stale."""
        with self.lock:
            self.known, self.old = {a: self.known[a] for a in addresses}, {}
            if self.lines.is_file():
                lines = [json.dumps({"address": a, **f}, ensure_ascii=True) + "\n" for a, f in self.known.items()]
                replace_file(self.lines, "".join(lines).encode())
            used = {f["content"] for f in self.known.values()}
            for path in self.raw.glob("*"):
                if path.name not in used:
                    path.unlink()

    def put(self, address: str, content: bytes, facts: Mapping[str, Any]) -> None:
        """Keep what was fetched, or with no content why there is none."""
        name = blake3(content).hexdigest() if content else ""
        with self.lock:
            if content and not (self.raw / name).exists():
                replace_file(self.raw / name, content)
            self.known[address] = {**facts, "content": name}
            self._append({"address": address, **facts, "content": name})

    def _append(self, facts: Mapping[str, Any]) -> None:
        line = json.dumps(facts, ensure_ascii=True) + "\n"
        try:
            append_lines(self.lines, line.encode())
        except OSError as error:
            raise cannot_write(self.lines, error) from error


def write_table(path: Path, table: pa.Table) -> None:
    """Put a Parquet file in place as a whole. Raises UserError if there is no room."""
    try:
        with new_file(path) as file:
            pq.write_table(table, file, compression="zstd", row_group_size=1_000)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """Why a file of the data set is not written, as on a full disk."""
    return UserError(
        f"{path} cannot be written: {error.strerror or error}. {free_bytes(path.parent):,} bytes are free. Make room, "
        "then repeat the command with `resume`: nothing that was collected is lost.",
        CANNOT_WRITE,
    )


def row_of(record: Record, store: Store) -> dict[str, Any]:
    """A record as a row of `PARTS`; its content is kept."""
    about = {**vars(record.about)}
    file = "" if record.content is None else store.put_blob(record.content, record.suffix)
    return {
        **{k: v for k, v in about.items() if k != "extra"},
        "extra": sorted((encodable(k), encodable(v)) for k, v in about["extra"].items()),
        **{name: getattr(record, name) for name in ("id", "kind", "text", "source", "where", "language", "near")},
        "file": file or None,
        "cluster": "",
        "scores": sorted(record.scores.items()),
        "changed": list(record.changed),
        "bytes": record.size,
    }


def _encodable(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts UTF-8 can hold: names of files, and what others wrote, may not be so."""
    return {k: encodable(v) if isinstance(v, str) else v for k, v in row.items()}


def all_rows(tables: Sequence[Path], columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of several files, a few at a time in memory."""
    for table in tables:
        with pq.ParquetFile(table) as file:
            for batch in file.iter_batches(1_000, columns=columns):
                yield from batch.to_pylist()
