"""Whether a path holds molecules, by the names of its files and the beginning of the first one."""

from __future__ import annotations

from pathlib import Path

from afresh.core import Sniff, Unsupported, UserError
from afresh.data.files import DataFile, FileError, describes_data, open_plain, suffix_of, walk, zip_names
from afresh.data.table_recognition import of_lines, of_table
from afresh.data.tables import rows as tables
from afresh.domains.molecule.reading import LISTS, PLAIN, STRUCTURES

HEAD = 1 << 18  # bytes that are looked at


def recognised(path: Path) -> Sniff:
    """How certain it is that a path holds molecules, and why."""
    if not path.exists():
        return Sniff(0.0, f"{path} does not exist")
    if path.is_file() and path.suffix.lower() == ".zip":
        return _by_names([n for n in zip_names(path) if not describes_data(n)])
    try:
        files = walk(path)[0]
    except UserError as error:
        return Sniff(0.0, str(error))
    files = [f for f in files if not describes_data(f.name)] or files
    named = _by_names([f.name for f in files])
    if named.score or not files:
        return named
    readable = [
        f for f in files if suffix_of(f.name) in tables.SUFFIXES or (path.is_file() and suffix_of(f.name) == PLAIN)
    ]
    if 2 * len(readable) <= len(files):
        return named
    seen = _seen(readable[0])
    return named if seen is None or seen.kind != "molecules" else Sniff(0.95, seen.seen)


def _by_names(names: list[str]) -> Sniff:
    ours = sum(suffix_of(n) in LISTS | STRUCTURES for n in names)
    return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are .smi or .sdf")


def _seen(file: DataFile) -> Unsupported | None:
    suffix = suffix_of(file.name)
    try:
        if suffix != PLAIN:
            return of_table(tables.read_beginning(file, suffix))
        with open_plain(file) as stream:
            head = stream.read(HEAD)
        return of_lines(head[: head.rfind(b"\n") + 1 or len(head)].decode("utf-8", "replace"))
    except (FileError, OSError, EOFError):  # reading it reports what is wrong
        return None
