"""Forgetting: what came from a source or a person, or an item, leaves every file of a data set."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.collected import BLOBS, ITEMS, MANIFEST, kept_aside, manifest, rows
from afresh.data.imported import remove_data
from afresh.data.storage.files import replace_file, write_json
from afresh.services.collect.dataset_store import JOURNAL, WORK, SourceParts, Store, write_table
from afresh.services.collect.deletion_marks import FORGOTTEN, is_forgotten, left_behind, mark, marks_of, person_keys
from afresh.services.collect.gather import put_together
from afresh.services.collect.record import people_of

REPORT = "report.html"
LISTED = 20  # items that name a person
FORGETTING = "forgetting"  # in the manifest, the marks of sources until nothing of them is left


@dataclass(frozen=True)
class ForgetRequest:
    """What is to be forgotten: a source by its place, a person by name or address of e-mail, or items by their ids with
    commas between. One is given."""

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
        return [s for s in known["sources"] if self.keys & person_keys(s["about"].get("person", ""))]

    @property
    def keys(self) -> frozenset[str]:
        """What the person is known by in the columns of a data set."""
        return person_keys(self.person or "")

    @property
    def marks(self) -> frozenset[str]:
        """The hashes by which a person or items are known again; none of a source, which may be collected again."""
        people = {mark("person", key) for key in (self.person, *self.keys) if key}
        return frozenset(people | {mark("item", i) for i in (self.item or "").split(",") if i})


@dataclass(frozen=True)
class Naming:
    """An item of others that names a person: how often, and where it was found."""

    item: str
    where: str
    times: int


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
    duplicates of what was forgotten and are items of the data set now. people: how the person is written in what goes,
    with the number of items. named: items of others that name the person, which stay; perhaps: people with the same
    initial and last name, who stay."""

    parts: tuple[HeldItems, ...]
    instead: tuple[str, ...] = ()
    people: Mapping[str, int] = field(default_factory=dict)
    named: tuple[Naming, ...] = ()
    perhaps: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()

    @property
    def items(self) -> int:
        return sum(p.items for p in self.parts)

    @property
    def left_out(self) -> int:
        return sum(p.left_out for p in self.parts)

    def lines(self, wish: ForgetRequest) -> Iterator[str]:
        """What goes, and what stays that names the person, in words."""
        for written, count in self.people.items():
            yield f"{counted(count, 'item')} of {written}"
        if self.named:
            times = counted(sum(n.times for n in self.named), "time")
            yield f"{wish.person} is named {times} in {counted(len(self.named), 'item')} of others, not removed:"
            yield from (f"  {n.where}: {counted(n.times, 'time')}" for n in self.named[:LISTED])
            ids = ",".join(n.item for n in self.named[:LISTED])
            yield f"Remove {'them' if len(self.named) <= LISTED else 'the first of them'} with `item={ids}`"
        if self.perhaps:
            yield f"not removed, but perhaps the same person: {', '.join(self.perhaps[:LISTED])}"


def find(dataset: Path, wish: ForgetRequest) -> Forgotten:
    """What would be forgotten. Raises UserError if the folder is not a data set, or holds nothing of the kind."""
    known = manifest(dataset)
    whole = {s["key"] for s in wish.source_of(known)}
    stores = [(source["key"], Store(dataset).parts(source["key"])) for source in known["sources"]]

    def tables() -> Iterator[tuple[str, int, list[list[dict[str, Any]]]]]:
        for key, held in stores:
            for number, name in enumerate(held.names()):
                pairs = zip(held.tables(name), COLUMNS, strict=True)
                yield key, number, [pq.read_table(table, columns=columns).to_pylist() for table, columns in pairs]

    written = Counter(p for _, _, (items, _) in tables() for row in items for p in people(row).split("; ") if p)
    his = {p: n for p, n in written.items() if wish.keys & person_keys(p)}
    bare = {f"bare {key}" for p in his for key in person_keys(p) if "@" in key and not key.startswith("bare ")}
    his |= {p: n for p, n in written.items() if bare & person_keys(p)}
    marks = wish.marks | {mark("person", key) for key in bare}
    parts = []
    for key, number, (items, left) in tables():
        mine = [r for r in items if key in whole or is_forgotten(marks, "", "", people(r), r["id"])]
        out = [r for r in left if key in whole or is_forgotten(marks, "", "", people(r), r["item"])]
        if mine or out:
            parts.append(HeldItems(key, number, len(mine), len(out), frozenset(r["kind"] for r in mine)))
    named = tuple(namings(dataset, wish, marks, {s["place"] for s in wish.source_of(known)})) if wish.person else ()
    perhaps = tuple(p for p in written if p not in his and may_be(wish.keys, person_keys(p)))
    found = Forgotten(tuple(parts), (), his, named, perhaps, marks)
    if not parts and not wish.source and not whole and not wish.marks & marks_of(known):  # else it is repeated
        others = f" {' '.join(found.lines(wish))}." if named or perhaps else ""
        raise UserError(
            f"{dataset} holds nothing of {wish}.{others} Give a name or an address of e-mail of the columns person and "
            f"extra of its {ITEMS}, or an id of the column id.",
            "nothing_to_forget",
        )
    return found


def may_be(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a name of one is a name of the other with an initial, as "T. Brandt"."""
    for a, b in product(one, other):
        (first, *rest), (initial, *last) = sorted(
            (n.replace(".", " ").split() or [""] for n in (a, b)), key=lambda n: -len(n[0])
        )
        if len(initial) == 1 and last and last == rest and first.startswith(initial):
            return True
    return False


def namings(dataset: Path, wish: ForgetRequest, marks: frozenset[str], going: Collection[str]) -> Iterator[Naming]:
    """The items that stay and name the person in their text, or in what describes them."""
    forms = []
    for key in wish.keys:
        first, *rest = map(re.escape, key.split())
        forms += [r"\s+".join((first, *rest))] + (
            [rf"{rest[-1]}\s*,\s*{' '.join((first, *rest[:-1]))}"] if rest else []
        )
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(forms)})(?!\w)", re.IGNORECASE)
    for row in rows(dataset, ["id", "where", "source", "person", "extra", *TEXTS]):
        if row["source"] in going or is_forgotten(marks, "", "", people(row), row["id"]):
            continue
        if times := sum(len(pattern.findall(row[column] or "")) for column in TEXTS):
            yield Naming(row["id"], row["where"], times)


TEXTS = ("text", "title", "caption", "label")
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
    manifest(dataset)  # refuses what is not a data set before anything is written
    with store.locked():
        found, known = find(dataset, wish), manifest(dataset)
        before = {row["id"] for row in rows(dataset, ["id"])}
        marks = marks_of(known) | found.marks
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
                marks |= clean(parts, source["place"], marks)
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
        named = tuple(namings(dataset, wish, frozenset(marks), ())) if wish.person else ()
    return replace(found, instead=tuple(sorted(after - before)), named=named)


def clean(parts: SourceParts, place: str, marks: frozenset[str]) -> set[str]:
    """Write the parts of a source again without what is forgotten; returns hashes of where it was."""
    places: set[str] = set()
    for name in parts.names():
        places |= clean_part(parts, name, marks)
    if places:
        parts.fetched.forget(places)
    return {mark("where", place, where) for where in places}


def clean_part(parts: SourceParts, name: str, marks: frozenset[str]) -> set[str]:
    """Write a part again; returns where in the source that was which is gone."""
    paths = parts.tables(name)
    items, left = pq.read_table(paths[0]), pq.read_table(paths[1])
    gone, out = chosen_rows(items, "id", marks), chosen_rows(left, "item", marks)
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


def chosen_rows(table: pa.Table, item: str, marks: frozenset[str]) -> pa.BooleanArray:
    """Which rows of a table, whose column `item` holds the ids, are to be forgotten."""
    known = table.select([c for c in (item, "person", "extra") if c in table.column_names]).to_pylist()
    return pa.array([is_forgotten(marks, "", "", people(row), row[item] or "") for row in known], pa.bool_())


def remove_unused(store: Store, known: dict[str, Any]) -> None:
    """Remove contents that no part names, the report, which is made again, and what writes that were cut off left."""
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
