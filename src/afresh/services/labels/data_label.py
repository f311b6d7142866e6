"""The label of data: of a data set of `collect` from its ledger, of other files and folders from their content.

Data that `collect` did not gather, in the vocabulary of ML Croissant: its files with their hashes.

Data sets of `collect` have a croissant.json of their own (collect/cards.py), whose records can be read by it.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.events import progress
from afresh.core.safe_text import visible_line
from afresh.data.collected import is_collected, manifest
from afresh.data.storage.files import readable
from afresh.runs.content_hash import file_hash
from afresh.services.collect.cards import CROISSANT, croissant, croissant_document, facts_of, file_object, licence_pages
from afresh.services.collect.licences import duties
from afresh.services.collect.record import UNKNOWN
from afresh.services.labels.label import Follows, Label, Part
from afresh.services.labels.run_label import joined, known_consent

MOST_FILES = 100_000
MANY = 1_000  # files, after each of which progress is told


def label_of_data(path: Path) -> Label:
    """The label of a file or folder of data. Raises UserError if it cannot be read, or has too many files."""
    name = visible_line(path.resolve().name)
    if path.is_dir() and is_collected(path):
        return _label_of_collected(path, name)
    files = files_in(path)
    sizes = sum(f.stat().st_size for f in files)
    hashes = []
    for number, file in enumerate(files, 1):
        hashes.append(hash_of(file))
        if number % MANY == 0:
            progress(f"{number:,} of {len(files):,} files are read", "labelling", done=number, of=len(files))
    digest = hashlib.sha256(json.dumps(sorted(hashes)).encode())  # in which names and places have no part
    return Label(
        subject="data",
        id=f"sha256:{digest.hexdigest()}",
        name=name,
        facts={"files": len(files), "bytes": sizes},
        licences=(Follows(licence=UNKNOWN, duties=(), of=(name,)),),
        consent=known_consent(None),
        notes=("Its licences are not recorded: `afresh collect` gathers data with a ledger.",),
    )


def _label_of_collected(path: Path, name: str) -> Label:
    facts, known = facts_of(path), manifest(path)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts.kinds.items()))
    licences = sorted((s.licence for s in facts.ledger.shares), key=lambda x: (x == UNKNOWN, x))
    return Label(
        subject="data",
        id=f"blake3:{known['digest']}",
        name=name,
        facts={"items": facts.items, "bytes": facts.bytes, "kinds": kinds},
        licences=tuple(Follows(licence=x, duties=duties(x), of=(name,)) for x in licences),
        expression=None if UNKNOWN in licences else joined(licences),
        consent=known_consent(facts.ledger.without_consent),
        notes=(f"Licences by bytes: {facts.ledger}.",),
    )


def files_in(path: Path) -> list[Path]:
    """The regular files that a path names, without hidden ones and links. Raises UserError without any."""
    with readable(path):
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if is_shown(p, path))
    if not found:
        raise UserError(f"{path} holds no files. Give a run, a file, or a folder of data.", "no_data")
    if len(found) > MOST_FILES:
        raise UserError(
            f"{path} holds {len(found):,} files, and a label is made of at most {MOST_FILES:,}. Gather them with "
            "`afresh collect`, whose data sets have one table.",
            "too_many_files",
        )
    return found


def is_shown(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.is_file() and not file.is_symlink() and not hidden


def hash_of(file: Path) -> str:
    """The SHA-256 of a file. Raises UserError if it cannot be read."""
    with readable(file):
        return file_hash(file)


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
