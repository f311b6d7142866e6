"""A batch of what sources found becomes items: a pure function, so that any number of processes give the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from afresh.collect.extract import extract, extractors
from afresh.collect.licences import normalised_or_unknown
from afresh.collect.near import with_prints
from afresh.collect.record import EXCERPT, UNKNOWN, Found, Record, Rejection, encodable, rejected
from afresh.collect.rules import rules

EXAMPLES = 3  # of what a rule changed in a batch, and of the images and sounds that it left out


@dataclass(frozen=True)
class Changed:
    """An item that a rule changed: the beginnings of its text before and after, where they differ."""

    rule: str
    where: str
    before: str
    after: str


@dataclass
class Part:
    """What became of a batch. `seen` and `changed` count the records that each rule judged and changed. `shown`: a few
    images and sounds that were left out, by their ids, for the report to show."""

    records: list[Record] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    found: int = 0
    bytes: int = 0  # of what was found
    seen: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    examples: list[Changed] = field(default_factory=list)
    shown: dict[str, Record] = field(default_factory=dict)


def process(source: str, batch: Sequence[Found | Rejection], chosen: Mapping[str, Any]) -> Part:
    """Extract the items of a batch, and apply the rules of these names with these values."""
    known, part = extractors(), Part()
    applied = [(rule, rule.with_value(chosen[rule.name])) for rule in rules() if rule.name in chosen]
    for found in batch:
        if isinstance(found, Rejection):
            part.rejections.append(found)
            continue
        part.found += 1
        part.bytes += len(found.content)
        for item in extract(source, found, known):
            if isinstance(item, Rejection):
                part.rejections.append(item)
                continue
            kept: Record | None = with_licence(with_whole_characters(item))
            for rule, judge in applied:
                if kept is None:
                    break
                if kept.kind in rule.kinds:
                    kept = _judged(rule.name, kept, judge(kept), part)
            if kept is not None:
                part.records.append(kept)
    part.records = with_prints(part.records)
    return part


def _judged(name: str, record: Record, verdict: Record | str, part: Part) -> Record | None:
    part.seen[name] = part.seen.get(name, 0) + 1
    if isinstance(verdict, str):
        part.rejections.append(rejected(record, "clean", name, verdict))
        if record.content is not None and sum(r.rule == name for r in part.rejections) <= EXAMPLES:
            part.shown[part.rejections[-1].item] = record
        return None
    if verdict.text != record.text:
        part.changed[name] = part.changed.get(name, 0) + 1
        if part.changed[name] <= EXAMPLES:
            part.examples.append(Changed(name, record.where, *differing(record.text or "", verdict.text or "")))
        verdict = replace(verdict, changed=(*verdict.changed, name))
    return verdict


def with_whole_characters(record: Record) -> Record:
    """The record with a text that UTF-8 can hold."""
    text = None if record.text is None else encodable(record.text)
    return record if text == record.text else replace(record, text=text)


def with_licence(record: Record) -> Record:
    """The record with the licence that its source states in the form of SPDX; a licence that is none is unknown, and
    what was said instead stays in `licence_from`."""
    about = record.about
    if about.licence == UNKNOWN:
        return record
    licence = normalised_or_unknown(about.licence)
    if licence == about.licence:
        return record
    origin = f"{about.licence_from}: {about.licence[:200]}" if licence == UNKNOWN else about.licence_from
    return replace(record, about=replace(about, licence=licence, licence_from=origin))


def differing(before: str, after: str) -> tuple[str, str]:
    """Two texts from shortly before they first differ."""
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = max(0, same - 40)
    return before[start : start + EXCERPT], after[start : start + EXCERPT]
