"""Data that `collect` did not gather, in the vocabulary of ML Croissant: its files with their hashes.

Data sets of `collect` have a croissant.json of their own (collect/cards.py), whose records can be read by it.
"""

from __future__ import annotations

import json
import mimetypes
import re
from pathlib import Path
from typing import Any

from afresh.core.safe_text import visible_line
from afresh.data.collected import is_collected, manifest
from afresh.services.collect.cards import CROISSANT, croissant, croissant_head, facts_of, licence_pages
from afresh.services.labels.data_label import files_in, hash_of, label_of_data
from afresh.services.labels.label import Label, Part

LISTED = 1_000  # files of a folder that are listed one by one
OCTETS = "application/octet-stream"


def croissant_of_data(path: Path) -> dict[str, Any]:
    """The Croissant of a file or folder. Raises UserError if it cannot be read."""
    name = visible_line(path.resolve().name) or "data"
    if path.is_dir() and is_collected(path):
        try:
            made: dict[str, Any] = json.loads((path / CROISSANT).read_bytes())
        except (OSError, ValueError):  # removed by hand
            made = croissant(path, name, facts_of(path), manifest(path))
        return made
    label, files = label_of_data(path), files_in(path)
    root = path if path.is_dir() else path.parent
    more = f"; the first {LISTED:,} are listed" if len(files) > LISTED else ""
    text = f"{len(files):,} files, {label.facts['bytes']:,} bytes{more}. Its licences are not recorded."
    return document(name, text, label.id, [file_object(f, root, n) for n, f in enumerate(files[:LISTED], 1)])


def croissant_of_part(label: Label, part: Part) -> dict[str, Any]:
    """The Croissant of the data that a run has learnt from, as far as the run's record knows them: without files."""
    urls = licence_pages(s.licence for s in part.licences)
    text = f"Data that a model has learnt from, whose content hash is {label.id}. {part.note}".strip()
    return document(part.name, text, part.id, []) | ({"license": urls} if urls else {})


def document(name: str, description: str, id: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    made = croissant_head(re.sub(r"[^\w.-]+", "-", name).strip("-."), description, id.partition(":")[2])
    return made | {"identifier": id} | ({"distribution": files} if files else {})


def file_object(file: Path, root: Path, number: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"file-{number}",
        "name": f"file-{number}",
        "contentUrl": file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode(),
        "contentSize": f"{file.stat().st_size} B",
        "encodingFormat": mimetypes.guess_type(file.name)[0] or OCTETS,
        "sha256": hash_of(file),
    }
