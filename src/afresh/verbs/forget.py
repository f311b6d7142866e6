"""The verb `forget`: a data set without what came from a source or a person, or an item, and the runs that have seen
it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from afresh.core import UserError, events
from afresh.data.collected import learnt_kinds
from afresh.data.preferences import preferences
from afresh.runs.data_lineage import learnt_from
from afresh.runs.person_adapters import runs_in
from afresh.runs.record import RunRecord, read_record
from afresh.services.collect.forget import ForgetRequest, Forgotten, find, versions
from afresh.services.collect.forget import forget as remove
from afresh.verbs.collected.page import write_page


@dataclass(frozen=True)
class Witness:
    """A run that has learnt from what is forgotten. certain: whether the data set knows the version that it learnt
    from; if not, it learnt from a folder of that name."""

    run: Path
    certain: bool


def forget(dataset: Path, wish: ForgetRequest) -> tuple[Forgotten, list[Witness]]:
    """Forget, and make the report again; returns what was forgotten, and the runs in the folder of runs that have seen
    it. Raises UserError as `afresh.services.collect.forget.find`."""
    found = remove(dataset, wish)
    write_page(dataset)
    for line in replace(found, people={}).lines(wish):
        events.note(line, "named")
    return found, witnesses(dataset, found)


def would_forget(dataset: Path, wish: ForgetRequest) -> tuple[Forgotten, list[Witness]]:
    """What `forget` would do."""
    found = find(dataset, wish)
    return found, witnesses(dataset, found)


def witnesses(dataset: Path, found: Forgotten) -> list[Witness]:
    """The runs in the folder of runs that learnt from a version of the data set which held what was found."""
    parts_of = {entry["digest"]: entry["parts"] for entry in versions(dataset)}
    kinds = frozenset(kind for p in found.parts for kind in p.kinds)
    seen = []
    for path, record in records(preferences().runs):
        for learnt in learnt_from(record):
            if learnt.digest in parts_of:
                held = parts_of[learnt.digest]
                if any(p.number < held.get(p.source, 0) and learns(record, p.kinds) for p in found.parts):
                    seen.append(Witness(path, True))
                    break
            elif learnt.name == dataset.resolve().name and learns(record, kinds):
                seen.append(Witness(path, False))
                break
    return seen


def learns(record: RunRecord, kinds: frozenset[str]) -> bool:
    """Whether a run has learnt items of one of these kinds."""
    return not kinds.isdisjoint(learnt_kinds(record.modality, record.data.options))


def records(folder: Path) -> Iterator[tuple[Path, RunRecord]]:
    """The runs in a folder, and their adapters, whose record can be read."""
    for path in runs_in(folder):
        try:
            yield path, read_record((path / "run.json").read_bytes())
        except (OSError, ValueError, UserError):
            continue
