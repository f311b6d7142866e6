"""Forgetting: what came from a source or a person, or an item, leaves every file of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afresh.core import UserError
from afresh.data.collected import BLOBS, ITEMS, MANIFEST, kept_aside, manifest, rows
from afresh.data.imported import remove_data
from afresh.data.storage.files import replace_file, write_json
from afresh.services.collect.dataset_store import JOURNAL, WORK, SourceParts, Store, write_table
from afresh.services.collect.deletion_marks import FORGOTTEN, left_behind, mark, marks_of
from afresh.services.collect.gather import put_together
from afresh.services.collect.record import people_of

REPORT = "report.html"
FORGETTING = "forgetting"  # in the manifest, the marks of sources until nothing of them is left


@dataclass(frozen=True)
class ForgetRequest:
    """What is to be forgotten: a source by its place, a person by name, or an item by its id. One is given."""

    source: str | None = None
    person: str | None = None
    item: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError unless one is given."""
        given = [v for v in (self.source, self.person, self.item) if v]
        if len(given) != 1:
            raise UserError("Say what is to be forgotten: one of `source`, `person` and `item`.", "nothing_named")

    def __str__(self) -> str:
        return f"the source {self.source}" if self.source else f"the {'person' if self.person else 'item'} {self._name}"

    @property
    def _name(self) -> str:
        return self.person or self.item or ""

    def source_of(self, known: dict[str, Any]) -> list[dict[str, Any]]:
        """The sources that go as a whole; none if it was interrupted when they had gone. Raises UserError, listing all,
        if there is none of that place."""
        if self.source:
            found = [s for s in known["sources"] if self.source in (s["place"], s["key"])]
            if not found and mark("source", self.source) not in known.get(FORGETTING, ()):
                listed = ", ".join(s["place"] for s in known["sources"]) or "none"
                raise UserError(f"The data set has no source {self.source!r}. Its sources: {listed}.", "no_such_source")
            return found
        return [s for s in known["sources"] if self.person and s["about"].get("person") == self.person]

    @property
    def marks(self) -> frozenset[str]:
        """The hash by which a person or an item is known again; none of a source, which may be collected again."""
        words = ("person", self.person) if self.person else ("item", self.item) if self.item else None
        return frozenset() if words is None else frozenset({mark(words[0], words[1] or "")})

    def matches(self, person: str, item: str) -> bool:
        return bool(self.person and self.person in person.split("; ")) or bool(self.item and item == self.item)


@dataclass(frozen=True)
class HeldItems:
    """How much of a part of a source is to be forgotten. kinds: of the items."""

    source: str
    number: int
    items: int
    left_out: int
    kinds: frozenset[str]


@dataclass(frozen=True)
class Forgotten:
    """What was, or would be, forgotten: the parts that held it. instead: the ids of items that were left out as
    duplicates of what was forgotten and are items of the data set now."""

    parts: tuple[HeldItems, ...]
    instead: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        return sum(p.items for p in self.parts)

    @property
    def left_out(self) -> int:
        return sum(p.left_out for p in self.parts)


def find(dataset: Path, wish: ForgetRequest) -> Forgotten:
    """What would be forgotten. Raises UserError if the folder is no data set, or holds nothing of the kind."""
    known = manifest(dataset)
    whole = {s["key"] for s in wish.source_of(known)}
    parts = []
    for source in known["sources"]:
        held = Store(dataset).parts(source["key"])
        for number, name in enumerate(held.names()):
            items, left = (pq.read_table(t, columns=c) for t, c in zip(held.tables(name), COLUMNS, strict=True))
            mine = [r for r in items.to_pylist() if source["key"] in whole or wish.matches(people(r), r["id"])]
            out = [r for r in left.to_pylist() if source["key"] in whole or wish.matches(people(r), r["item"])]
            if mine or out:
                parts.append(HeldItems(source["key"], number, len(mine), len(out), frozenset(r["kind"] for r in mine)))
    if not parts and not wish.source and not whole and not wish.marks & marks_of(known):  # else it is repeated
        raise UserError(
            f"{dataset} holds nothing of {wish}. Give a name as it stands in the columns person and "
            f"extra of its {ITEMS}, or an id of the column id.",
            "nothing_to_forget",
        )
    return Forgotten(tuple(parts))


COLUMNS = (["id", "kind", "person", "extra"], ["item", "person"])


def people(row: dict[str, Any]) -> str:
    """Whose a row is, and who takes part in it."""
    return people_of(row["person"] or "", dict(row.get("extra") or ()))


def forget(dataset: Path, wish: ForgetRequest) -> Forgotten:
    """Remove from every file of a data set what came from a source or a person, or an item, and write it again.

    What is kept of a person or an item is a hash, so that it is not collected again; a source may be. Copies that were
    written aside to be learnt from are removed too. If this is interrupted, repeat it. Raises UserError as `find`.
    """
    store = Store(dataset)
    manifest(dataset)  # refuses what is no data set before anything is written
    with store.locked():
        found, known = find(dataset, wish), manifest(dataset)
        before = {row["id"] for row in rows(dataset, ["id"])}
        marks = marks_of(known) | wish.marks
        known[FORGOTTEN] = sorted(marks)
        if wish.source:
            known[FORGETTING] = sorted({*known.get(FORGETTING, ()), mark("source", wish.source)})
        write_json(dataset / MANIFEST, known)
        whole = wish.source_of(known)
        remove_places(dataset, whole)
        for source in known["sources"]:
            parts = store.parts(source["key"])
            if source in whole:
                parts.remove()
            elif wish.marks:
                marks |= clean(parts, source["place"], wish)
        known["sources"] = [s for s in known["sources"] if s not in whole]
        known[FORGOTTEN] = sorted(marks)
        put_together(store, known)
        remove_unused(store, known)
        for digest in (entry["digest"] for entry in versions(dataset)):
            for data in kept_aside(digest):
                remove_data(data)
        if known.pop(FORGETTING, None) is not None:
            write_json(dataset / MANIFEST, known)
        kind = "source" if wish.source else "person" if wish.person else "item"
        store.note(FORGOTTEN, kind=kind, items=found.items, left_out=found.left_out)
        after = {row["id"] for row in rows(dataset, ["id"])}
    return Forgotten(found.parts, tuple(sorted(after - before)))


def clean(parts: SourceParts, place: str, wish: ForgetRequest) -> set[str]:
    """Write the parts of a source again without what is forgotten; returns hashes of where it was."""
    places: set[str] = set()
    for name in parts.names():
        places |= clean_part(parts, name, wish)
    if places:
        parts.fetched.forget(places)
    return {mark("where", place, where) for where in places}


def clean_part(parts: SourceParts, name: str, wish: ForgetRequest) -> set[str]:
    """Write a part again; returns where in the source that was which is gone."""
    paths = parts.tables(name)
    items, left = pq.read_table(paths[0]), pq.read_table(paths[1])
    gone, out = chosen_rows(items, "id", wish), chosen_rows(left, "item", wish)
    if not pc.any(gone).as_py() and not pc.any(out).as_py():
        return set()
    rows_gone = [*items.filter(gone).to_pylist(), *left.filter(out).to_pylist()]
    places = {r["where"] for r in rows_gone}
    items, left = items.filter(pc.invert(gone)), left.filter(pc.invert(out))
    marker = pa.Table.from_pylist([vars(left_behind(r["source"])) for r in rows_gone], left.schema)
    facts = parts.facts(name)
    facts["examples"] = [e for e in facts["examples"] if e["where"] not in places]
    replace_file(parts.folder / f"{name}.json", json.dumps(facts, ensure_ascii=True).encode())
    write_table(paths[1], pa.concat_tables([left, marker]))
    write_table(paths[0], items)
    return places - set(items["where"].to_pylist())


def chosen_rows(table: pa.Table, item: str, wish: ForgetRequest) -> pa.BooleanArray:
    """Which rows of a table, whose column `item` holds the ids, are to be forgotten."""
    known = table.select([c for c in (item, "person", "extra") if c in table.column_names]).to_pylist()
    return pa.array([wish.matches(people(row), row[item] or "") for row in known], pa.bool_())


def remove_unused(store: Store, known: dict[str, Any]) -> None:
    """Remove contents that no part names, the report, which is made anew, and what writes that were cut off left."""
    used: set[str] = set()
    for source in known["sources"]:
        parts = store.parts(source["key"])
        for name in parts.names():
            for table in parts.tables(name):
                used |= {f for f in pq.read_table(table, columns=["file"])["file"].to_pylist() if f}
    for path in (store.folder / BLOBS).rglob("*"):
        if path.is_file() and path.relative_to(store.folder).as_posix() not in used:
            path.unlink()
    for path in store.folder.rglob(".*.tmp"):
        path.unlink()
    (store.folder / REPORT).unlink(missing_ok=True)


def remove_places(dataset: Path, sources: list[dict[str, Any]]) -> None:
    """Write the journal again with the keys of these sources, which earlier versions named by their places."""
    keys = {s["place"]: s["key"] for s in sources}
    entries = list(journal(dataset))
    if any(entry.get("source") in keys for entry in entries):
        lines = [{**e, "source": keys.get(e["source"], e["source"])} if "source" in e else e for e in entries]
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        replace_file(dataset / WORK / JOURNAL, content.encode())


def versions(dataset: Path) -> Iterator[dict[str, Any]]:
    """The digests that a data set has had, each with the number of parts by source."""
    return (entry for entry in journal(dataset) if entry.get("what") == "assembled")


def journal(dataset: Path) -> Iterator[dict[str, Any]]:
    """What was done with a data set, in order."""
    try:
        lines = (dataset / WORK / JOURNAL).read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue  # cut off when a process was ended
