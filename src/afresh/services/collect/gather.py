"""Data is gathered from sources into the folder of a data set; what was interrupted goes on where it was."""

from __future__ import annotations

import math
import shutil
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import ValidationError

from afresh.core import UserError, events
from afresh.core.options import problems
from afresh.core.plural import counted
from afresh.data.collected import FORMAT, MANIFEST, manifest
from afresh.data.storage.files import CANNOT_WRITE, write_json
from afresh.services.collect.assemble import Assembly, assemble, tables_of
from afresh.services.collect.cards import write_cards
from afresh.services.collect.dataset_store import WORK, SourceParts, Store
from afresh.services.collect.deletion_marks import FORGOTTEN, mark, marks_of, without
from afresh.services.collect.leakage import Other, other_source
from afresh.services.collect.licences import normalised
from afresh.services.collect.process import SourcePart, process
from afresh.services.collect.record import UNKNOWN, Found, Rejection
from afresh.services.collect.rules import chosen
from afresh.services.collect.sources import (
    Options,
    Source,
    Unavailable,
    bounded,
    options_of,
    own_options,
    python,
    source_of,
)
from afresh.services.collect.trust import check_trust, compared_with, sign, sources_of
from afresh.services.collect.workers import workers

AGAIN = "Repeat the command with `resume` to go on; what was read is kept."
BATCH, BATCH_BYTES = 256, 8 << 20  # things that are found, and their bytes, that become one part
AGAINST = "against"  # in the folder of what is worked with
WAITING = 4  # batches a process that are read ahead


@dataclass(frozen=True)
class CollectLimits:
    """When to stop although there is more: bytes and things that were found, and minutes. None: never."""

    bytes: int | None = None
    items: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class SourcePlace:
    """A source as it was given, with its options, and what is said of all that it finds."""

    source: Source
    place: str
    options: Options
    about: Mapping[str, str]

    @property
    def key(self) -> str:
        """What names its folder: the place and what is read of it, however politely, and whatever is said of it."""
        apart = self.source.manner | self.source.permitting | set(Options.model_fields)
        told = f"{self.source.name}\0{self.place}\0{self.options.model_dump_json(exclude=set(apart))}"
        return blake3(told.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def differs(self, row: Mapping[str, Any]) -> bool:
        """Whether other items are found here than by a row of the manifest for the same place."""
        before = {k: v for k, v in row["options"].items() if k not in self.source.manner}
        now = {k: v for k, v in self.json()["options"].items() if k not in self.source.manner}
        return before != now or row["about"] != dict(self.about)

    def json(self) -> dict[str, Any]:
        options = self.options.model_dump(mode="json", exclude_defaults=True)
        return {"source": self.source.name, "place": self.place, "options": options, "about": dict(self.about)}


def place_of(
    place: str, options: Mapping[str, Any] | None = None, about: Mapping[str, str] | None = None
) -> SourcePlace:
    """A source that was given. Raises UserError if none accepts it, if an option is not one of its own, or if what is
    said of its licence is not an expression of SPDX."""
    source = source_of(place)
    return SourcePlace(source, place, options_of(source, options or {}), said(about or {}))


def places(
    given: Sequence[str], options: Mapping[str, Any], about: Mapping[str, str] | None = None
) -> list[SourcePlace]:
    """Several sources. An option goes to those that have it. Raises UserError as `place_of`, and for an option that
    none of them has."""
    found = [source_of(place) for place in given]
    known = {name for source in found for name in source.options.model_fields}
    if found and (unknown := [name for name in options if name not in known]):
        listed = {s.name: ", ".join(own_options(s)) or "none" for s in found} | {"all": ", ".join(Options.model_fields)}
        if len(found) == 1:
            options_of(found[0], options)  # which says what it may have meant
        raise UserError(
            f"No source has the option {unknown[0]}. Their options are: "
            f"{'; '.join(f'{name}: {names}' for name, names in listed.items())}.",
            "unknown_option",
        )
    own = [{k: v for k, v in options.items() if k in source.options.model_fields} for source in found]
    return [place_of(place, mine, about) for place, mine in zip(given, own, strict=True)]


def said(about: Mapping[str, str]) -> dict[str, str]:
    """What is said of a whole source, with the licence as SPDX writes it."""
    return {name: normalised(value) if name == "licence" else value for name, value in about.items()}


def other_place(place: str) -> SourcePlace:
    """Other data that a data set is compared with. Raises UserError if it cannot be read."""
    source = other_source(place)
    return SourcePlace(source, place, options_of(source, {}), {})


def places_of(
    given: Any,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    about: Mapping[str, str] | None = None,
) -> list[SourcePlace]:
    """The places in what a program gave: a place or a list of them, or with a `name` data of the program itself.

    Raises UserError like `place_of`, and for data without a name.
    """
    if name is not None:
        source = python.of_object(given)
        return [SourcePlace(source, f"{python.PREFIX}{name}", options_of(source, options or {}), said(about or {}))]
    listed = [given] if isinstance(given, str | Path) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(p, str | Path) for p in listed):
        raise UserError(
            "Data of a program needs a name, by which it is known when it is collected again. Give `name`; or give "
            "sources as paths and addresses.",
            "no_name",
        )
    return places([str(place) for place in listed], options or {}, about)


def gather(
    places: Sequence[SourcePlace],
    into: Path,
    *,
    on: Sequence[str] = (),
    off: Sequence[str] = (),
    limits: CollectLimits = CollectLimits(),
    resume: bool = False,
    refresh: bool = False,
    processes: int = 1,
    cluster: str = "",
    assembly: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Collect from these sources, after those that the data set has, and write its items; returns its manifest.

    on, off: rules that are switched on, as `name` or `name=value`, or off; others stay as they are in the data set.
    resume: go on with sources that were not finished. refresh: read these sources, or all if none is given, again; what
    is fetched from elsewhere is fetched only if it changed. assembly: fields of `Assembly`; others stay as they are,
    too. processes: that clean. cluster: the address of a Ray cluster that cleans instead, or "local" for one on this
    machine. trust: read also what the manifest of another user's data set names. Raises UserError if the folder holds
    something else, if a source was not finished and `resume` is not given, for unknown rules, for values that a rule or
    an assembly does not accept, and for a data set of another user without `trust`.
    """
    if into.exists() and not (into / MANIFEST).is_file() and any(p.name != "work" for p in into.iterdir()):
        raise UserError(f"{into} holds something else. Name a new folder, or a data set that was collected before.")
    chosen(on, off)  # refuses what is wrong before anything is written
    store = Store(into)
    with store.locked():
        if (into / MANIFEST).is_file():
            before, now = manifest(into), {place.key for place in places}
            own = [row for row in sources_of(before) if row["key"] not in now]
            check_trust(into, [*own, *([] if "against" in (assembly or {}) else compared_with(before))], trust)
        known = _known(into, on, off, store)
        rules = known["rules"]
        known["assembly"] = chosen_assembly(known.get("assembly", {}), assembly or {})
        unfinished = [row["place"] for row in known["sources"] if not row["finished"]]
        if unfinished and not resume and not all(p.place in unfinished for p in places):
            raise UserError(
                f"{', '.join(unfinished)} was not collected to its end. Go on with `resume` first.", "not_finished"
            )
        for other in known["assembly"]["against"]:
            other_place(other)  # refuses what cannot be read before anything is
        _reprocess_changed(into, known, places, store)
        if refresh:
            _refresh(into, known, {place.key for place in places}, store)
        given = {place.key: place for place in places}
        unread = [row for row in known["sources"] if not row["finished"]]
        wanted = [
            (given.get(row["key"]) or place_of(row["place"], row["options"], row["about"]), row) for row in unread
        ]
        rows = {row["key"]: row for row in known["sources"]}
        for place in places:
            if place.key not in rows:
                rows[place.key] = {**place.json(), "key": place.key, "finished": False}
                known["sources"].append(rows[place.key])
                wanted.append((place, rows[place.key]))
        if not known["sources"]:
            raise UserError("No source. Give at least one: a folder, an address, a table, ...", "no_source")
        sign(into, [*known["sources"], *compared_with(known)])
        write_json(into / MANIFEST, known)
        budget = SourceBudget(limits)
        failures, forgotten = dict[str, str](), set(marks_of(known))
        with workers(processes, cluster) as (pool, processes):
            for place, row in wanted:
                if budget.spent:
                    break
                parts = store.parts(row["key"])
                store.note("begun", source=row["key"])
                try:
                    row["finished"] = run(place, parts, rules, budget, pool, processes, forgotten)
                except UserError as error:
                    if not parts.names():  # it was never read, as a table whose columns are not clear
                        known["sources"].remove(row)
                        write_json(into / MANIFEST, known)
                    if isinstance(error, Unavailable):
                        continue
                    if error.code == CANNOT_WRITE or len(wanted) == 1:
                        raise
                    failures[place.place] = str(error)
                    events.warning(f"{place.place} was not collected: {error}", error.code)
                    continue
                if forgotten:
                    known[FORGOTTEN] = sorted(forgotten)
                write_json(into / MANIFEST, known)
                store.note("finished" if row["finished"] else "stopped", source=row["key"])
            if budget.spent and (rest := counted(sum(not r["finished"] for r in known["sources"]), "source")):
                events.note(f"The limit was reached before the end of {rest}. Go on with `resume`.", "limit")
            put_together(store, known, pool, processes)
    return {**known, "failures": failures} if failures else known


def put_together(store: Store, known: dict[str, Any], pool: Executor | None = None, processes: int = 1) -> None:
    """Write the items of a data set from its parts, with its cards and its manifest."""
    into = store.folder
    others = [other_place(place) for place in known["assembly"]["against"]]
    compared = Store(into / WORK / AGAINST)
    shutil.rmtree(compared.folder, ignore_errors=True)
    for place in others:
        if not run(place, compared.parts(place.key), {}, SourceBudget(CollectLimits()), pool, processes):
            raise UserError(f"{place.place} was not read to its end. Repeat the command with `resume`.")
    parts_of = {row["key"]: store.parts(row["key"]) for row in known["sources"]}
    against = [Other(place.place, tables_of([compared.parts(place.key)])[0]) for place in others]
    known |= assemble(into, list(parts_of.values()), Assembly(**known["assembly"]), against)
    shutil.rmtree(compared.folder, ignore_errors=True)
    write_cards(into, known)
    write_json(into / MANIFEST, known)
    store.note("assembled", digest=known["digest"], parts={key: len(p.names()) for key, p in parts_of.items()})


def _known(into: Path, on: Sequence[str], off: Sequence[str], store: Store) -> dict[str, Any]:
    """The manifest so far. A data set keeps its rules; where other ones are wanted, everything is cleaned again."""
    if not (into / MANIFEST).is_file():
        return {"format": FORMAT, "rules": chosen(on, off), "sources": [], "digest": ""}
    known = manifest(into)
    rules = chosen(on, off, known["rules"])
    if known["rules"] != rules:
        events.note(f"The rules are others than before: {counted(len(known['sources']), 'source')} read again.")
        _read_again(into, known, known["sources"], store)
        known["rules"] = rules
    return known


def _read_again(into: Path, known: Mapping[str, Any], rows: Sequence[dict[str, Any]], store: Store) -> None:
    """Remove the parts of sources. That these are not finished is written first, under the rules and options by which
    they were read: if this is interrupted, the parts that are left are not taken for those of others."""
    for row in rows:
        row["finished"] = False
    write_json(into / MANIFEST, known)
    for row in rows:
        store.parts(row["key"]).clear()


def _reprocess_changed(into: Path, known: Mapping[str, Any], places: Sequence[SourcePlace], store: Store) -> None:
    """Mark sources to be cleaned again, from what was fetched, whose options or stated metadata changed."""
    rows = {row["key"]: row for row in known["sources"]}
    for place in places:
        row = rows.get(place.key)
        if row is None:
            continue
        if place.differs(row):
            events.note(f"{place.place} is read again: its options, or what is said of it, are others than before.")
            _read_again(into, known, [row], store)
        row |= place.json()


def chosen_assembly(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """All choices, including those given now. Raises UserError for one that is not valid."""
    try:
        return Assembly.model_validate({**before, **now}).model_dump(mode="json")
    except ValidationError as error:
        raise UserError(
            f"How the data set is assembled: {problems(error, Assembly)}. Give an accepted value, or leave it out to "
            "keep what the data set has."
        ) from None


def _refresh(into: Path, known: Mapping[str, Any], keys: Collection[str], store: Store) -> None:
    """Mark sources to be read again, all if `keys` is empty. One that was interrupted just goes on."""
    rows = [row for row in known["sources"] if row["finished"] and (not keys or row["key"] in keys)]
    _read_again(into, known, rows, store)
    for row in rows:
        store.parts(row["key"]).fetched.refresh()


class SourceBudget:
    """What may still be collected."""

    def __init__(self, limits: CollectLimits) -> None:
        most = (math.inf if limit is None else limit for limit in (limits.bytes, limits.items, limits.minutes))
        self.most_bytes, self.most_items, minutes = most
        self.until, self.bytes, self.items, self.full = time.monotonic() + 60 * minutes, 0, 0, False

    @property
    def spent(self) -> bool:
        """Whether nothing more can be collected."""
        spent = self.full or self.items >= self.most_items or self.bytes >= self.most_bytes
        return spent or time.monotonic() > self.until

    def spend(self, found: Found | Rejection) -> bool:
        """Whether there is enough for this too."""
        if time.monotonic() > self.until:
            return False
        if isinstance(found, Found):
            if self.items >= self.most_items:
                return False
            if self.bytes + len(found.content) > self.most_bytes:
                self.full = True
                return False
            self.items += 1
            self.bytes += len(found.content)
        return True


def run(
    place: SourcePlace,
    parts: SourceParts,
    rules: Mapping[str, Any],
    budget: SourceBudget,
    pool: Executor | None,
    processes: int,
    forgotten: set[str] | None = None,
) -> bool:
    """Collect from one source, from where it was interrupted; returns whether its end was reached.

    forgotten: the marks of what was to be forgotten; those of addresses where something of it was found are added.
    Raises Unavailable if the source cannot be read and nothing of it was.
    """
    done = parts.names()
    consumed = sum(parts.facts(name)["consumed"] for name in done)
    parts.fetched.consumed = consumed
    marks = set() if forgotten is None else forgotten
    parts.fetched.place, parts.fetched.forgotten = place.place, marks
    found = bounded(place.source, place.place, place.options, parts.fetched, sum(parts.facts(n)["bytes"] for n in done))
    stopped = False
    failed: Unavailable | None = None
    count = items = 0

    def affordable() -> Iterator[Found | Rejection]:
        nonlocal stopped, failed
        try:
            for one in islice(found, consumed, None):
                if not budget.spend(one):
                    stopped = True
                    return
                yield with_about(one, place.about)
        except Unavailable as error:
            stopped, failed = True, error
            events.warning(f"{place.place} was not read to its end: {str(error).rstrip('.')}. {AGAIN}", error.code)

    waiting: deque[tuple[int, int, Future[SourcePart] | SourcePart]] = deque()
    number = len(done)

    def settle() -> None:
        nonlocal count, items
        at, size, result = waiting.popleft()
        part = result.result() if isinstance(result, Future) else result
        part, places = without(part, marks)
        if places:  # before the part is written, after which it is not looked at again
            marks.update(mark("where", place.place, address) for address in parts.fetched.forget_while_read(places))
        parts.write(at, part, size)
        count, items = count + size, items + len(part.records)
        events.progress(f"{place.place}: {count:,} read, {items:,} kept", "collecting", read=count, kept=items)

    for batch in batches(affordable()):
        arguments = (place.place, batch, rules)
        waiting.append((number, len(batch), pool.submit(process, *arguments) if pool else process(*arguments)))
        number += 1
        while len(waiting) >= (WAITING * processes if pool else 1):
            settle()
    while waiting:
        settle()
    parts.fetched.read_to_its_end()
    if failed is not None and not parts.names():
        raise failed
    return not stopped


def with_about(one: Found | Rejection, about: Mapping[str, str]) -> Found | Rejection:
    """What was found, with what the user says of it where nothing else is known."""
    if isinstance(one, Rejection) or not about:
        return one
    known: dict[str, Any] = {k: v for k, v in about.items() if getattr(one.about, k) in ("", UNKNOWN)}
    return replace(one, about=replace(one.about, **known)) if known else one


def batches(found: Iterator[Found | Rejection]) -> Iterator[list[Found | Rejection]]:
    """What is found, in lists whose limits depend on nothing but what was found."""
    batch: list[Found | Rejection] = []
    size = 0
    for one in found:
        batch.append(one)
        size += len(one.content) if isinstance(one, Found) else 0
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
