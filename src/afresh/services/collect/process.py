"""A batch of what sources found becomes items: a pure function, so that any number of processes give the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.extract import extract, extractors
from afresh.services.collect.licences import normalised_or_unknown
from afresh.services.collect.near import with_prints
from afresh.services.collect.record import EXCERPT, UNKNOWN, Found, Record, Rejection, encodable, rejected
from afresh.services.collect.rules import Rule, Verdict, rules
from afresh.services.collect.veil import Veil

Judge = Callable[[Record], Verdict]
EXAMPLES = 3  # of what a rule changed in a batch, and of the images and sounds that it left out


@dataclass(frozen=True)
class Changed:
    """An item that a rule changed: the beginnings of its text before and after, where they differ. Of a rule that masks
    what is private there is no text before."""

    rule: str
    where: str
    before: str
    after: str


@dataclass
class SourcePart:
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


def process(source: str, batch: Sequence[Found | Rejection], chosen: Mapping[str, Any]) -> SourcePart:
    """Extract the items of a batch, and apply the rules of these names with these values."""
    known, part, veil = extractors(), SourcePart(), Veil(chosen)
    applied = [(rule, refusing(rule.with_value(chosen[rule.name]))) for rule in rules() if rule.name in chosen]
    for found in batch:
        if isinstance(found, Rejection):
            part.rejections.append(veil.rejection(found))
            continue
        part.found += 1
        part.bytes += len(found.content)
        for item in extract(source, found, known):
            if isinstance(item, Rejection):
                part.rejections.append(veil.rejection(item))
            else:
                clean(with_licence(with_whole_characters(item)), applied, veil, part)
    unread: list[Rejection] = []
    part.records = with_prints(part.records, unread)
    part.rejections += map(veil.rejection, unread)
    return part


def clean(record: Record, applied: Sequence[tuple[Rule, Judge]], veil: Veil, part: SourcePart) -> None:
    """Apply rules to an item, and note in the part what became of it."""
    changes: list[tuple[str, Record, Record]] = []
    private = False
    for rule, judge in applied:
        if record.kind not in rule.kinds:
            continue
        part.seen[rule.name] = part.seen.get(rule.name, 0) + 1
        verdict = judge(record)
        if isinstance(verdict, str):
            part.rejections.append(veil.rejection(rejected(record, "clean", rule.name, verdict), record))
            if record.content is not None and sum(r.rule == rule.name for r in part.rejections) <= EXAMPLES:
                part.shown[part.rejections[-1].item] = record
            private = private or rule.name in veil.private
            break
        if verdict.text != record.text or verdict.about != record.about:
            part.changed[rule.name] = part.changed.get(rule.name, 0) + 1
            changes.append((rule.name, record, verdict))
            private = private or rule.name in veil.private
            verdict = replace(verdict, changed=(*verdict.changed, rule.name))
        record = verdict
    else:
        part.records.append(record)
    for name, before, after in changes:
        if sum(e.rule == name for e in part.examples) < EXAMPLES and before.text != after.text:
            part.examples += examples(name, before, after, veil, private)


def examples(rule: str, before: Record, after: Record, veil: Veil, private: bool) -> list[Changed]:
    """What is shown of a change: nothing if it is of an item in which there is something private, but for what a rule
    that masks it has made of it. private: whether such a rule has found something in the item."""
    if rule in veil.private:
        return [Changed(rule, after.where, "", differing(before.text or "", veil.record(after).text or "")[1])]
    if private or veil.hides(before) or veil.hides(after):
        return []
    return [Changed(rule, after.where, *differing(before.text or "", after.text or ""))]


def refusing(judge: Judge) -> Judge:
    """The judgement of a rule, which leaves out a record that it fails on: what it would hide must not stay."""

    def verdict(record: Record) -> Verdict:
        try:
            with parsing(record.kind):
                return judge(record)
        except FileError as error:
            return f"the rule cannot be applied: {error}"

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
