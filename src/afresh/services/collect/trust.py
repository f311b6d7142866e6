"""Asks before a data set from another user reads the sources that its dataset.json names.

Going on with a data set reads files, data bases and addresses that stand in its manifest, with this user's rights. Each
source that this user has named, or has agreed to, is kept in DATASET/work/signature as an HMAC-SHA256 of what is read,
by the user's secret (afresh.data.storage.secret).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afresh.core import UserError, events
from afresh.data.storage.files import replace_file
from afresh.data.storage.secret import secret, secret_for
from afresh.services.collect.dataset_store import WORK

FILE = "signature"
AGAINST = "against"  # in place of the name of a source: data that the set is only compared with
Named = Mapping[str, Any]  # a source as the manifest holds it: the names of the source and the place, and options


def sources_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sources of a data set, which may come from another user. Raises UserError if they are invalid."""
    rows = manifest.get("sources")
    kinds = {"source": str, "place": str, "key": str, "options": dict, "about": dict, "finished": bool}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in kinds.items()) for row in rows
    ):
        raise UserError("dataset.json is damaged: its `sources` are no list of sources. Restore a copy.", "damaged")
    return rows


def compared_with(manifest: Mapping[str, Any]) -> list[Named]:
    """The data that a data set is compared with."""
    assembly = manifest.get("assembly")
    places = assembly.get(AGAINST) if isinstance(assembly, dict) else None
    return [{"source": AGAINST, "place": str(place), "options": {}} for place in places or ()]


def check_trust(folder: Path, sources: Sequence[Named], trust: bool) -> None:
    """Raises UserError, listing them, if this user has not named some of the sources, unless `trust` is given."""
    known = _signatures(folder)
    key = secret()
    strange = [_words(s) for s in sources if key is None or _signature(s, key) not in known]
    if not strange:
        return
    if not trust:
        raise UserError(
            f"{folder} was not collected here, or was changed since. Going on with it reads what its dataset.json "
            "names. If you want that, give `trust=True`:",
            "not_trusted",
            lines=strange,
            would=strange,
        )
    for line in strange:
        events.note(f"trusted: {line}", "trusted")


def sign(folder: Path, sources: Sequence[Named]) -> None:
    """Keep that this user has named these sources. Where there can be no secret, it is asked for again."""
    try:
        key = secret_for(str(folder))
    except UserError as error:
        events.warning(f"{error} Going on with it will be asked for.", error.code)
        return
    lines = sorted({_signature(source, key) for source in sources})
    if set(lines) != _signatures(folder):
        replace_file(folder / WORK / FILE, "".join(f"{line}\n" for line in lines).encode())


def _signatures(folder: Path) -> set[str]:
    try:
        return set((folder / WORK / FILE).read_text("ascii").split())
    except (OSError, ValueError):
        return set()


def _signature(source: Named, key: bytes) -> str:
    read = json.dumps([source["source"], source["place"], source["options"]], sort_keys=True)
    return hmac.new(key, b"afresh source\n" + read.encode(), hashlib.sha256).hexdigest()


def _words(source: Named) -> str:
    what = "data to compare with" if source["source"] == AGAINST else f"source ({source['source']})"
    options = ", ".join(f"{name}={value}" for name, value in source["options"].items())
    return f"read the {what}: {source['place']}{f' with {options}' if options else ''}"
