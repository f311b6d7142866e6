"""The files in which the chats of an export are: one that is given, or those in its folder or its .zip archive."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from afresh.core import UserError
from afresh.data.files import DataFile, FileError, ZipLimits, read_bytes, read_zip, walk, zip_names

HEAD = 1 << 16  # bytes in which a kind of export is recognised
SUFFIXES = (".json", ".txt", ".jsonl")
# As exports name the file of chats, beside which are images, pages and more.
NAMED = re.compile(r"(result|conversations([-_]?\d+)?)\.json|_chat\.txt|.*whatsapp.*\.txt", re.IGNORECASE)
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError)

Known = Callable[[str, bytes], bool]  # whether a file of this name, which begins so, is an export


def names_in(path: Path) -> list[str]:
    """The files in a folder or an archive, or the name of the file itself."""
    if path.suffix.lower() == ".zip" and path.is_file():
        return sorted(zip_names(path))
    if path.is_file():
        return [path.name]
    try:
        return [file.name for file in walk(path)[0]] if path.is_dir() else []
    except UserError:  # an empty folder
        return []


def exports_in(path: Path, names: Sequence[str], known: Known) -> list[str]:
    """Which of these files are exports: those that are named as exports name them, at the top or in every folder there;
    or all files, if they are nothing else. None of a folder that has exports among other data."""
    heads = _heads(path)
    named = [name for name in names if NAMED.fullmatch(PurePosixPath(name).name)]
    top = [name for name in named if "/" not in name]
    below = [name for name in named if name.count("/") == 1]
    if not top and below and {n.partition("/")[0] for n in names} == {n.partition("/")[0] for n in below}:
        top = below
    if found := [name for name in top if known(name, heads(name))]:
        return found
    alike = all(PurePosixPath(n).suffix.lower() in SUFFIXES and known(n, heads(n)) for n in names)
    return list(names) if alike else []


def _heads(path: Path) -> Callable[[str], bytes]:
    """Reads the beginning of a file in a place; empty if it cannot be read."""

    def head(name: str) -> bytes:
        try:
            if path.is_dir() or path.suffix.lower() != ".zip":
                with (path / name if path.is_dir() else path).open("rb") as file:
                    return file.read(HEAD)
            with zipfile.ZipFile(path) as archive, archive.open(name) as member:
                return member.read(HEAD)
        except UNREADABLE:
            return b""

    return head


def contents(path: Path, names: Sequence[str], max_mb: int) -> Iterator[tuple[str, bytes | str]]:
    """The files of these names with their content, or the reason why one cannot be read."""
    if path.is_dir() or path.suffix.lower() != ".zip":
        for name in names:
            file = path / name if path.is_dir() else path
            try:
                yield name, read_bytes(DataFile(file, name, file.stat().st_size), max_mb)
            except (FileError, OSError) as error:
                yield name, str(error)
        return
    wanted = set(names)
    try:
        inside, refused = read_zip(path, SUFFIXES, ZipLimits(member_bytes=max_mb << 20))
        yield from ((name, content) for name, content in inside if name in wanted)
        reasons = {r.source.removeprefix(f"{path.name}: "): r.reason for r in refused}
        yield from ((name, reasons[name]) for name in names if name in reasons)
    except UserError as error:
        yield path.name, str(error)
