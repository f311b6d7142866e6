"""What `afresh data` found, in words for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from afresh.core import Refused, registry
from afresh.core.plural import counted
from afresh.data.refusals import refusal_lines
from afresh.faces.studio.page_words import plain_words
from afresh.verbs.inspect_data import describe_numbers, describe_sizes

SHOWN = 24  # classes of a label, refused files


@dataclass(frozen=True)
class LookCard:
    """The data of a person as it would be learnt. `facts`: (name, value); `labels`: {label: {class: count}}; `refused`:
    lines about files that are left out, of which there are `refused_count`."""

    name: str
    modality: str
    plural: str
    total: int
    train: int
    heldout: int
    why: str
    facts: tuple[tuple[str, str], ...]
    labels: Mapping[str, Mapping[str, int]]
    more_labels: Mapping[str, int]
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    refused: tuple[str, ...]
    refused_count: int
    families: tuple[str, ...]


def look_card(found: Mapping[str, Any]) -> LookCard:
    """From the result of `afresh data`."""
    modality = registry.modality(found["modality"])
    train, heldout = found["train"], found["heldout"]
    facts = [("To learn from", f"{train:,}"), ("Held back, to check what was learnt", f"{heldout:,}")]
    facts.append(("Size", describe_sizes(found["sizes"])))
    facts += [(name, describe_numbers(values)) for name, values in found["numbers"].items()]
    if found["captions"]:
        facts.append(("Descriptions", f"of {counted(found['captions'], 'item')}"))
    exact, near = len(found["exact_duplicates"]), found["near_duplicates"]
    if exact:
        facts.append(("Duplicates", f"{exact:,}, left out"))
    if near:
        facts.append(("Nearly the same", f"{counted(len(near), 'pair')}, kept"))
    if found["licences"]:
        facts.append(("Licence files", ", ".join(list(found["licences"])[:SHOWN])))
    labels = {name: counts for name, counts in found["labels"].items() if len(counts) > 1}
    return LookCard(
        name=PurePath(found["path"]).name,
        modality=found["modality"],
        plural=modality.kind.plural,
        total=train + heldout,
        train=train,
        heldout=heldout,
        why=found["why"],
        facts=tuple(facts),
        labels={name: dict(list(counts.items())[:SHOWN]) for name, counts in labels.items()},
        more_labels={name: max(0, len(counts) - SHOWN) for name, counts in labels.items()},
        advice=tuple(plain_words(a["text"]) for a in found["advice"]),
        notes=tuple(map(plain_words, found["notes"])),
        refused=tuple(map(plain_words, refusal_lines([Refused(**r) for r in found["refused"]], SHOWN))),
        refused_count=len(found["refused"]),
        families=registry.family_names(),
    )
