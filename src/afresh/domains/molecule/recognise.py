"""Whether a path holds molecules, by the names of its files and the beginning of the first one."""

from __future__ import annotations

import zlib
from pathlib import Path

from afresh.core import Sniff, Unsupported
from afresh.data.files import DataFile, FileError, describes_data, open_plain, suffix_of, walk, zip_names
from afresh.data.tables import SUFFIXES
from afresh.data.tables.roles import lowered
from afresh.data.tables.rows import read_head
from afresh.domains.molecule.reading import LISTS, PLAIN, STRUCTURES, are_molecules

HEAD, ROWS = 1 << 18, 500  # bytes and lines that are looked at
LINES = 20  # fewer lines are not judged


def recognise(path: Path) -> Sniff:
    """How certain it is that a path holds molecules, and why."""
    if path.is_file() and path.suffix.lower() == ".zip":
        return _by_names([n for n in zip_names(path) if not describes_data(n)])
    files = walk(path)[0]
    files = [f for f in files if not describes_data(f.name)] or files
    named = _by_names([f.name for f in files])
    if named.score or not files:
        return named
    tables = [f for f in files if suffix_of(f.name) in SUFFIXES]
    lists = [f for f in files if suffix_of(f.name) == PLAIN]
    readable = [*tables, *(lists if path.is_file() else ())]
    seen = _seen(readable[0]) if 2 * len(readable) > len(files) else ""
    if seen:
        return Sniff(0.95, seen, columns=1)
    if len(lists) == len(files) and _seen(lists[0]):
        advice = "To learn its lines as text all the same: `modality=text` and `data.document=line`"
        return Sniff(0.0, "lists", Unsupported("molecules", "its lines are SMILES", advice), columns=1)
    return named


def _by_names(names: list[str]) -> Sniff:
    ours = sum(suffix_of(n) in LISTS | STRUCTURES for n in names)
    return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are .smi or .sdf")


def _seen(file: DataFile) -> str:
    """Where the molecules of a file are; empty if it has none."""
    try:
        if suffix_of(file.name) != PLAIN:
            table = read_head(file)
            named = (c for c in table.columns if lowered(c).endswith(("smiles", "selfies", "inchi")))
            alike = (c for c in table.texts if len(v := table.texts_of(c)) >= LINES and are_molecules(v))
            column = next(named, None) or next(alike, None)
            return f"column {column}" if column is not None and table.rows else ""
        with open_plain(file) as stream:
            head = stream.read(HEAD)
    except (FileError, OSError, EOFError, zlib.error):  # reading it reports what is wrong
        return ""
    lines = head[: head.rfind(b"\n") + 1 or len(head)].decode("utf-8", "replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()][:ROWS]
    return "its lines are SMILES" if len(lines) >= LINES and are_molecules(lines) else ""
