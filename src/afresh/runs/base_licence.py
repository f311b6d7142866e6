"""The licence of public weights, as those who made them state it, before a run learns on from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afresh.core import UserError
from afresh.core.safe_text import visible_line
from afresh.runs.base_model import located
from afresh.runs.formats.hub import hub_texts
from afresh.runs.formats.model_card import card_metadata, shared_name
from afresh.runs.formats.peft import CONFIG, base_named
from afresh.runs.record import BaseLicence, read_record
from afresh.services.collect.licences import is_licence, licence_of_text, of_hub
from afresh.services.collect.record import UNKNOWN

LONGEST = 300  # characters of a name or an address in a card


def licences_of(base: str, seen: Sequence[Path] = ()) -> list[BaseLicence]:
    """The licences of a base: those that a run has recorded, or that of public weights; of an adapter, its own and
    that of its model. Of a name on the hub, texts are fetched, but no weights. Raises UserError if they cannot be."""
    path = Path(base).expanduser()
    if not path.exists():
        path = hub_texts(base)
    if path.resolve() in seen:  # adapters that name each other, which opening them reports
        return []
    if (path / "run.json").is_file():
        try:
            return read_record((path / "run.json").read_bytes()).licences
        except (OSError, ValueError, UserError):  # which opening the run reports
            return []
    own = [stated(path, shared_name(base))]
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        try:
            return [*own, *licences_of(located(base_named(path), path), (*seen, path.resolve()))]
        except UserError:  # which opening the adapter reports
            return own
    return own


def stated(folder: Path, name: str) -> BaseLicence:
    """The licence in the metadata of a folder's README.md, or that whose text is in a file LICENSE."""
    card = card_metadata(folder)
    named = card.get("license")
    given = [str(x) for x in (named if isinstance(named, list) else [named]) if x]
    other, link = (visible_line(str(card.get(f"license_{k}") or ""))[:LONGEST] for k in ("name", "link"))
    found = [of_hub(x, other) for x in given]
    if found and UNKNOWN not in found:
        words = visible_line(given[0])[:LONGEST] if len(given) == 1 else "other"
        return BaseLicence(name=name, licence=" OR ".join(found), hub=words, link=link, said_by="its model card")
    for file in sorted(f for f in folder.iterdir() if is_licence(f.name)) if folder.is_dir() else ():
        try:
            licence = licence_of_text(file.read_text(encoding="utf-8", errors="replace")[:100_000])
        except OSError:
            continue
        if licence != UNKNOWN:
            return BaseLicence(name=name, licence=licence, said_by=f"its file {file.name}")
    return BaseLicence(name=name, licence=UNKNOWN, link=link)
