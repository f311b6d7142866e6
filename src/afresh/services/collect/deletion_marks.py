"""What a data set was told to forget does not come back when its sources are read again.

Kept are hashes alone, which tell a name or a place that one knows already, but do not tell what was forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from blake3 import blake3

from afresh.services.collect.process import SourcePart
from afresh.services.collect.record import Rejection

FORGOTTEN = "forgotten"  # in the manifest; also the stage and the rule
WHY = "it was to be forgotten"


def mark(kind: str, *words: str) -> str:
    """A hash of a person, an item, or a place in a source."""
    return blake3("\0".join((FORGOTTEN, kind, *words)).encode("utf-8", "surrogatepass")).hexdigest()


ADDRESS = re.compile(r"[^\s<>()\[\]\"',;:@]+@[^\s<>()\[\]\"',;:@]+")


def person_keys(written: str) -> frozenset[str]:
    """What a person is known by who is written as "Ann Smith", "Smith, Ann" or "Ann Smith <ann@example.org>".

    These are the name, the address, and "bare ADDRESS" where it stands without a name, all without regard to case.
    """
    addresses = {found.casefold() for found in ADDRESS.findall(written)}
    name = re.sub(r"[<>()\[\]\"']|mailto:", " ", ADDRESS.sub(" ", written))
    last, comma, first = name.partition(",")
    name = " ".join((f"{first} {last}" if comma and "," not in first else name).casefold().split())
    return frozenset(addresses | ({name} if name else {f"bare {address}" for address in addresses}))


def is_forgotten(marks: Collection[str], source: str, where: str, person: str, item: str) -> bool:
    """Whether one of the people, the item or its place was to be forgotten."""
    if not marks:
        return False
    known = [("person", key) for name in person.split("; ") if name for key in (name, *person_keys(name))]
    known += [("item", item)] if item else []
    return any(mark(*words) in marks for words in (*known, ("where", source, where)))


def marks_of(manifest: Mapping[str, Any]) -> frozenset[str]:
    """What a data set was told to forget."""
    return frozenset(manifest.get(FORGOTTEN, ()))


def left_behind(source: str) -> Rejection:
    """What stands in place of something that was forgotten."""
    return Rejection(source, "", FORGOTTEN, FORGOTTEN, WHY)


def without(part: SourcePart, marks: Collection[str]) -> tuple[SourcePart, frozenset[str]]:
    """A part without what was forgotten, and the places in the source where it was read, and nothing else was."""
    if not marks:
        return part, frozenset()
    records, rejections, places = [], [], set[str]()
    for record in part.records:
        if is_forgotten(marks, record.source, record.where, record.about.people, record.id):
            places.add(record.where)
            rejections.append(left_behind(record.source))
        else:
            records.append(record)
    for r in part.rejections:
        if is_forgotten(marks, r.source, r.where, r.person, r.item):
            if r.rule != FORGOTTEN:  # else its place was not read
                places.add(r.where)
            rejections.append(left_behind(r.source))
        else:
            rejections.append(r)
    items, examples = {r.item for r in rejections}, [e for e in part.examples if e.where not in places]
    shown = {item: record for item, record in part.shown.items() if item in items}
    left = replace(part, records=records, rejections=rejections, examples=examples, shown=shown)
    return left, frozenset(places - {record.where for record in records})
