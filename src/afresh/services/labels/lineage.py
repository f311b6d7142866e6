"""What a run was made from, as a graph: from its record, and from those of the models that it names and that are here.

A folder that a record names is believed to be that model only if its weights have the digest that the record has; and
it is looked into only if this user made the run (runs/signature.py), since the name could be of anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from afresh.core import UserError
from afresh.core.safe_json import read_model
from afresh.core.safe_text import visible_line, with_texts
from afresh.runs.content_hash import content_hash, file_hash, known_weights_hash, weights_hash
from afresh.runs.formats.model_card import dataset_name, shared_name
from afresh.runs.manifest import LABEL, files_of
from afresh.runs.person_adapters import base_of
from afresh.runs.record import BaseLicence, CollectedRecord, RunRecord
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here
from afresh.services.labels.label import Label, Link, Part, Stated

MOST_DEPTH = 32  # models from which models were made
REWARD_MODEL = "reward-model"


@dataclass
class Lineage:
    """The graph: parts by their ids, links, the runs that were found, by their parts, and what is not known."""

    load: bool = True
    parts: dict[str, Part] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, part: Part, of: str, how: str) -> None:
        """A part, from which another was made. A part that is there already keeps what is known of it."""
        known = self.parts.get(part.id)
        if known is None or (not known.licences and part.licences):
            self.parts[part.id] = part
        link = Link(of=of, how=how, source=part.id)
        if link not in self.links:
            self.links.append(link)


def lineage_of(run: Run, id: str, load: bool = True) -> Lineage:
    """What a run was made from; `id` is that of the run itself. load: whether weights may be loaded to know what they
    are; else models of which that is not known already are not followed."""
    found = Lineage(load)
    _follow(found, run, id, (run.path.resolve(),))
    return found


def _follow(found: Lineage, run: Run, id: str, chain: tuple[Path, ...]) -> None:
    """Add what a run was made from. `chain`: the folders of the runs on the way to it, itself included."""
    record = run.record
    if (declared := declared_label(run)) is not None:
        found.parts = {p.id: p for p in declared.parts} | found.parts
        links = (link.model_copy(update={"of": id}) if link.of == declared.id else link for link in declared.links)
        found.links += [link for link in links if link not in found.links]
        return
    _add_data(found, record, id)
    _add_alignment(found, run, id)
    if record.codec is not None and (part := folder_part(run.path / "codec", "codec", record.codec)) is not None:
        if (public := record.codec_licence) is not None:
            part = part.model_copy(update={"name": visible_line(public.name), "licences": (stated(public),)})
        found.add(part, id, "works in the space of")
    if record.base_model is None:
        return
    base = base_part(record)
    parent = None if base.id.startswith("name:") else _parent(found, run, base, chain)
    found.add(base if parent is None else own_part(base, parent), id, how_made(record))
    if parent is not None:
        found.runs[base.id] = parent
        _follow(found, parent, base.id, (*chain, parent.path.resolve()))
        return
    for inherited in record.inherited:
        found.add(data_part(inherited), base.id, "learnt from")
    for other in record.base_licences[1:]:  # of an adapter, its own licence is followed by that of its model
        name = visible_line(other.name)
        part = Part(
            id=f"name:{name}", kind="model", name=name, licences=(stated(other),), note="its digest is not known"
        )
        found.add(part, base.id, "merged with")


def declared_label(run: Run) -> Label | None:
    """The label that came with a run in a bundle, as its maker had it; None if it has none, or has changed since.
    Raises UserError if the file is damaged."""
    file = run.path / LABEL
    if not file.is_file():
        return None
    found = read_model(file, Label, "the label of a run")
    if found.id != f"sha256:{content_hash(run)}":
        return None
    return Label.model_validate(with_texts(found.model_dump(mode="json"), visible_line))


def how_made(record: RunRecord) -> str:
    """How a run was made from its base, in words."""
    if record.teacher_sha256 is not None:
        return "distilled from"
    if record.align is not None:
        return "aligned from"
    return "an adapter of" if record.lora is not None else "tuned from"


def base_part(record: RunRecord) -> Part:
    """The model that a run began with: by the digest of its weights."""
    name = visible_line(shared_name(record.base_model or "")).removesuffix("-hf")
    digest = record.teacher_sha256 or record.base_sha256
    licences = tuple(stated(b) for b in record.base_licences[:1])
    if digest is None:
        return Part(id=f"name:{name}", kind="model", name=name, licences=licences, note="its digest was not recorded")
    return Part(
        id=f"sha256:{digest}", kind="model", name=name, about="the weights that it samples with", licences=licences
    )


def own_part(base: Part, parent: Run) -> Part:
    """The same part, where its run is here: without a licence of its maker, its licences are those of what it was made
    from itself."""
    update: dict[str, object] = {"run": f"sha256:{content_hash(parent)}"}
    if parent.record.base_model is not None and parent.record.licence is None:
        update["licences"] = ()
    return base.model_copy(update=update)


def stated(base: BaseLicence) -> Stated:
    return Stated(licence=base.licence, said_by=visible_line(base.said_by))


def _parent(found: Lineage, run: Run, base: Part, chain: tuple[Path, ...]) -> Run | None:
    """The run that a run was made from, if it is here and is what the record says. What keeps it from being followed is
    noted."""
    named = visible_line(run.path.name)
    place = str(base_of(run.path.resolve())) if run.record.personal else base_model_here(run)
    if place is None or not (Path(place) / "run.json").is_file():
        if place is None or not Path(place).exists():
            found.notes.append(f"{base.name} is not here: what it was made from is what the record of {named} says.")
        return None
    if Path(place).resolve() in chain:
        found.notes.append(f"The lineage is circular: {named} names {base.name}, which was itself made from it.")
        return None
    if len(chain) > MOST_DEPTH:
        found.notes.append(f"What {base.name} was made from is not followed: more than {MOST_DEPTH} models in a row.")
        return None
    try:
        parent = Run.open(place)
        weights = weights_hash(parent) if found.load else known_weights_hash(parent)
    except UserError as error:
        found.notes.append(f"{base.name} cannot be read: {visible_line(str(error))}")
        return None
    if weights is None:
        found.notes.append(f"What {base.name} was made from stands in its own label, which reads its weights.")
        return None
    if f"sha256:{weights}" != base.id:
        found.notes.append(f"{base.name} has other weights by now than those that {named} was made from.")
        return None
    return parent


# --------------------------------------------------------------------------- parts that are no models


def _add_data(found: Lineage, record: RunRecord, id: str) -> None:
    own = record.data.collected
    if own is not None:
        found.add(data_part(own), id, "learnt from")
        return
    name = visible_line(dataset_name(record.data.path))
    part = Part(
        id=f"sha256:{record.data.split_hash}",
        kind="data",
        name=name,
        about="the content of both sides of the split",
        note="no licence of it is recorded, since `collect` did not gather it",
    )
    found.add(part, id, "learnt from")


def data_part(collected: CollectedRecord) -> Part:
    """A data set of `collect`: by the digest of its items."""
    licences = tuple(Stated(licence=s.licence, items=s.items, bytes=s.bytes) for s in collected.licences)
    name = visible_line(collected.name)
    return Part(id=f"blake3:{collected.digest}", kind="data", name=name, about="its items", licences=licences)


def _add_alignment(found: Lineage, run: Run, id: str) -> None:
    align = run.record.align
    if align is None:
        return
    if align.preferences_sha256 is not None:
        name = visible_line(Path(align.preferences or "votes").name)
        part = Part(id=f"sha256:{align.preferences_sha256}", kind="preferences", name=name, about="the file of votes")
        found.add(part, id, "aligned to")
    if (model := folder_part(run.path / REWARD_MODEL, "reward", "a reward that was learnt from votes")) is not None:
        found.add(model, id, "aligned to")
    for role, text in (("aligned to", align.reward), ("watched by", align.heldout_reward)):
        if text is not None:
            name = visible_line(without_folders(text))
            note = "what it was at the time is not recorded"
            found.add(Part(id=f"name:{name}", kind="reward", name=name, note=note), id, role)


def without_folders(reward: str) -> str:
    """The words of a reward with the names of files instead of their paths."""
    return re.sub(r"[^\s'\"*!]*/", "", reward)


def folder_part(folder: Path, kind: str, name: str) -> Part | None:
    """A folder of a run by the SHA-256 of its files' hashes; None if it is not there or cannot be read."""
    try:
        files = {n: file_hash(folder.parent / n) for n in files_of(folder.parent, [folder.name])}
    except OSError:
        return None
    if not files:
        return None
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return Part.model_validate({"id": f"sha256:{digest}", "kind": kind, "name": name, "about": "its files"})
