"""Data that `collect` did not gather, in the vocabulary of ML Croissant: its files with their hashes.

Data sets of `collect` have a croissant.json of their own (collect/cards.py), whose records can be read by it.
"""

from __future__ import annotations

import json
import mimetypes
from pathlib import Path
from typing import Any

from afresh.core.safe_text import visible_line
from afresh.data.collected import is_collected, manifest
from afresh.services.collect.cards import CROISSANT, croissant, croissant_document, facts_of, file_object, licence_pages
from afresh.services.labels.data_label import files_in, hash_of, label_of_data
from afresh.services.labels.label import Label, Part

LISTED = 1_000  # files of a folder that are listed one by one


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
    listed = []
    for n, file in enumerate(files[:LISTED], 1):
        url = file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
        encoding = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        listed.append(file_object(f"file-{n}", file, url, encoding, hash_of(file)))
    return croissant_document(name, text, label.id.partition(":")[2], identifier=label.id, distribution=listed)


def croissant_of_part(label: Label, part: Part) -> dict[str, Any]:
    """The Croissant of the data that a run has learnt from, as far as the run's record knows them: without files."""
    urls = licence_pages(s.licence for s in part.licences)
    text = f"Data that a model has learnt from, whose content hash is {label.id}. {part.note}".strip()
    return croissant_document(part.name, text, part.id.partition(":")[2], identifier=part.id, license=urls)
