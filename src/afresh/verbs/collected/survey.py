"""What is known of a data set that `collect` made, and samples of what was kept, left out and changed.

Items are read a few at a time, and those that are shown are chosen by their hashes: the same for the same data set.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from afresh.core.plural import counted
from afresh.data.collected import ITEMS, REJECTED, manifest
from afresh.services.collect.cards import CardFacts, facts_of
from afresh.services.collect.dataset_store import SourceParts, Store, all_rows
from afresh.services.collect.process import Changed
from afresh.services.collect.rules import rules
from afresh.services.collect.rules.personal import summary

SHOWN = 6  # of what a rule left out or changed, and of the items beside it
LISTED = 12  # sources, languages and rules in words
PAIRS = 8  # of duplicates
POINTS, OUTSIDE = 800, 200  # items on the map, and what was left out
MEASURED = 20_000  # items of which lengths and scores are shown
GROUPS = 64  # of rows that are read for texts
STAGES = {
    "find": "could not be used where it was found",
    "extract": "had nothing that is read",
    "clean": "left out by rules",
    "duplicates": "equal or nearly equal to others",
    "leakage": "found in a benchmark",
    "forgotten": "forgotten",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage of the funnel: how many were left out at it, and how many remain."""

    name: str
    left_out: int
    remain: int


@dataclass
class Judged:
    """What a rule did: how many it judged, left out and changed, and examples of them."""

    stage: str
    rule: str
    about: str = ""
    seen: int = 0
    left_out: int = 0
    changed: int = 0
    samples: list[Row] = field(default_factory=list)
    examples: list[Changed] = field(default_factory=list)


@dataclass(frozen=True)
class DuplicatePair:
    """Something that was left out as a duplicate, and the item that it repeats."""

    rule: str
    reason: str
    first: Row
    second: Row


@dataclass(frozen=True)
class Survey:
    """A data set as a person decides about it. `kept`: items for the map and to be shown. `measured`: rows of kind,
    bytes and scores."""

    path: Path
    manifest: Mapping[str, Any]
    facts: CardFacts
    found: int
    found_bytes: int
    judged: tuple[Judged, ...]
    kept: tuple[Row, ...]
    measured: tuple[Row, ...]
    pairs: tuple[DuplicatePair, ...]

    @property
    def stages(self) -> list[Stage]:
        """The funnel from what was extracted, or was not, to the items."""
        left: Counter[str] = Counter()
        for j in self.judged:
            left[j.stage] += j.left_out
        remain = self.facts.items + sum(left.values())
        out = [Stage("found", 0, remain)]
        for name in STAGES:
            if left[name]:
                remain -= left[name]
                out.append(Stage(name, left[name], remain))
        return out

    def lines(self) -> list[str]:
        """The data set in words, a line each."""
        f, m = self.facts, self.manifest
        kinds = ", ".join(f"{n:,} {k}" for k, n in f.kinds.most_common()) or "none"
        out = [
            f"{self.path}: a data set of {counted(f.items, 'item')} ({kinds}), {f.bytes:,} bytes",
            *(
                f"  {s.remain:>12,}  {'found' if s.name == 'found' else f'after {s.left_out:,} {STAGES[s.name]}'}"
                for s in self.stages
            ),
            f"split: {', '.join(f'{n:,} {k}' for k, n in f.splits.most_common()) or 'none'}",
            f"licences: {f.ledger}",
        ]
        if f.ledger.without_consent:
            out.append(f"no consent is known for {counted(f.ledger.without_consent, 'item')} that show persons")
        if f.languages:
            out.append(f"languages: {', '.join(f'{k} {n:,}' for k, n in f.languages.most_common(LISTED))}")
        sources = sorted(f.sources.items(), key=lambda pair: -pair[1][0])
        out += [f"source: {s}: {counted(n, 'item')} ({'; '.join(sorted(said))})" for s, (n, said) in sources[:LISTED]]
        out += [f"source: and {counted(len(sources) - LISTED, 'source')} more"] if len(sources) > LISTED else []
        out += [f"source: {s['place']} was not collected to its end" for s in m["sources"] if not s["finished"]]
        left = sorted((j for j in self.judged if j.left_out), key=lambda j: -j.left_out)
        out += [f"left out: {j.left_out:,} by {j.stage}/{j.rule}" for j in left[:LISTED]]
        out += [f"changed: {j.changed:,} by {j.rule}" for j in self.judged if j.changed]
        return [*out, *self.personal]

    @property
    def personal(self) -> list[str]:
        """What personal data the items hold, or held before it was masked, and what was not searched for."""
        return list(summary(self.manifest.get("personal", {}), self.manifest["rules"].get("personal")))

    def json(self) -> dict[str, Any]:
        """The numbers as plain values."""
        f = self.facts
        return {
            "digest": self.manifest.get("digest", ""),
            "items": dict(f.kinds),
            "bytes": f.bytes,
            "found": self.found,
            "found_bytes": self.found_bytes,
            "stages": [vars(s) for s in self.stages],
            "splits": dict(f.splits),
            "licences": [vars(s) for s in f.ledger.shares],
            "without_consent": f.ledger.without_consent,
            "languages": dict(f.languages),
            "sources": {s: n for s, (n, _) in f.sources.items()},
            "left_out": {f"{j.stage}/{j.rule}": j.left_out for j in self.judged if j.left_out},
            "changed": {j.rule: j.changed for j in self.judged if j.changed},
            "personal": self.manifest.get("personal", {}),
        }


def survey(path: Path) -> Survey:
    """Look at a data set. Raises UserError if the folder is none."""
    known, numbers = manifest(path), facts_of(path)
    for row in known["sources"]:
        numbers.sources.setdefault(row["place"], (0, {"nothing of it is kept"}))
    parts = [Store(path).parts(s["key"]) for s in known["sources"]]
    found = size = 0
    seen: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    examples: dict[str, list[Changed]] = defaultdict(list)
    for source in parts:
        for name in source.names():
            facts = source.facts(name)
            found, size = found + facts["found"], size + facts["bytes"]
            seen.update(facts["seen"])
            changed.update(facts["changed"])
            for example in facts["examples"]:
                if len(examples[example["rule"]]) < SHOWN:
                    examples[example["rule"]].append(Changed(**example))
    judged = left_out(path)
    about = {rule.name: rule.about for rule in rules()}
    for name in changed:
        judged.setdefault(("clean", name), Judged("clean", name))
    for (stage, name), j in judged.items():
        if stage == "clean":
            j.about, j.seen, j.changed = about.get(name, ""), seen[name], changed[name]
            j.examples = examples[name]
    order = list(STAGES)
    ranked = sorted(judged.values(), key=lambda j: (order.index(j.stage), -j.left_out, -j.changed, j.rule))
    repeated = [row for j in ranked if j.stage == "duplicates" for row in j.samples if row["first"]]
    return Survey(
        path,
        known,
        numbers,
        found,
        size,
        tuple(ranked),
        tuple(sampled(path, POINTS)),
        tuple(measured(path)),
        tuple(pairs(parts, repeated)),
    )


def left_out(path: Path) -> dict[tuple[str, str], Judged]:
    """What was left out, by stage and rule, with some of it."""
    out: dict[tuple[str, str], Judged] = {}
    order: dict[tuple[str, str], list[tuple[str, Row]]] = defaultdict(list)
    for row in all_rows([path / REJECTED]):
        key = row["stage"], row["rule"]
        judged = out.setdefault(key, Judged(*key))
        judged.left_out += 1
        if row["excerpt"] or row["file"] or row["first"] or len(order[key]) < SHOWN:
            rank = blake3(f"{row['source']}\0{row['where']}".encode("utf-8", "surrogatepass")).hexdigest()
            shown = bool(row["excerpt"] or row["file"])
            order[key].append((("0" if shown else "1") + rank, row))
            if len(order[key]) >= 8 * OUTSIDE:
                order[key] = sorted(order[key], key=lambda pair: pair[0])[:OUTSIDE]
    for key, ranked in order.items():
        out[key].samples = [row for _, row in sorted(ranked, key=lambda pair: pair[0])[:OUTSIDE]]
    return out


SHOWN_COLUMNS = ["id", "kind", "text", "file", "source", "where", "licence", "language", "split", "label", "bytes"]
LONGEST = 4_000  # characters of a text that are kept


def sampled(path: Path, most: int) -> list[Row]:
    """Items with their texts, those of the least hashes in groups of rows at even intervals."""
    with pq.ParquetFile(path / ITEMS) as file:
        groups = file.num_row_groups
        chosen = sorted({i * groups // min(groups, GROUPS) for i in range(min(groups, GROUPS))})
        each = -(-most // max(1, len(chosen)))
        out: list[Row] = []
        for group in chosen:
            table = file.read_row_group(group, columns=SHOWN_COLUMNS)
            table = table.take(pc.sort_indices(table["id"])[:each])
            for row in table.to_pylist():
                row["text"] = None if row["text"] is None else row["text"][:LONGEST]
                out.append(row)
    return sorted(out, key=lambda row: row["id"])[:most]


def measured(path: Path) -> Iterator[Row]:
    """Lengths and scores of items, of as many as `MEASURED`."""
    with pq.ParquetFile(path / ITEMS) as file:
        limit = min(1.0, MEASURED / max(1, file.metadata.num_rows)) * (1 << 32)
    for row in all_rows([path / ITEMS], ["id", "kind", "bytes", "scores"]):
        if int(row["id"][:8], 16) < limit:
            yield row


def pairs(parts: list[SourceParts], repeated: list[Row]) -> Iterator[DuplicatePair]:
    """Duplicates with what they repeat, in full: near ones first."""
    near, exact = ([r for r in repeated if r["rule"] == rule] for rule in ("near", "exact"))
    wanted = [*near[: max(PAIRS - 2, PAIRS - len(exact))], *exact[: max(2, PAIRS - len(near))]]
    ids = {r[k] for r in wanted for k in ("item", "first")}
    wanted_ids = pa.array(sorted(ids), pa.string())
    found: dict[str, Row] = {}
    for source in parts if ids else ():
        for name in source.names():
            table = pq.read_table(source.tables(name)[0], columns=SHOWN_COLUMNS)
            for row in table.filter(pc.is_in(table["id"], value_set=wanted_ids)).to_pylist():
                found.setdefault(row["id"], row)
    for r in wanted:
        if r["first"] in found and r["item"] in found:
            second = {**found[r["item"]], "where": r["where"], "source": r["source"]}
            yield DuplicatePair(r["rule"], r["reason"], found[r["first"]], second)
