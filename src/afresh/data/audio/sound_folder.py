"""Sounds in a folder, an archive, or a folder of archives; and metadata columns from file names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from afresh.core import Refused, UserError
from afresh.data.audio import SUFFIXES
from afresh.data.audio.sounds import READ, Source
from afresh.data.files import FileError
from afresh.data.media_folder import Media, MediaCollection, file_names, open_folder, open_zip

SOUND_FILES = Media("sound", SUFFIXES, READ, "audio")
THREADS = 4  # each holds one sound while it decodes
AT_ONCE = 16  # sounds held at once, as bytes of an archive or as results
REST = "..."  # at the end of a pattern: any number of further parts

A = TypeVar("A")


def open_sounds(path: Path) -> MediaCollection:
    """Open a folder, a .zip archive, or a folder that contains archives but no sounds. Of several archives, each counts
    as a folder of its name; a single archive is read like its path.

    Raises UserError if the path does not exist, is another kind of file, or an empty folder. Iterating over the files
    raises UserError if an archive is damaged or a decompression bomb.
    """
    if not path.is_dir():
        if not path.exists() or path.suffix.lower() != ".zip":
            problem = "is a single file" if path.exists() else "does not exist"
            raise UserError(f"{path} {problem}. Give a folder of sounds ({READ}) or a .zip of one.")
        return open_zip(path, SOUND_FILES)
    collection = open_folder(path, SOUND_FILES)
    if not collection.containers or next(collection.files(), None) is not None:
        return collection
    archives = {c.name: open_zip(c, SOUND_FILES) for c in collection.containers}
    tables = dict(collection.tables)
    outside = [r for r in collection.refused if r.source not in archives]
    refused = list(outside)

    def files() -> Iterator[tuple[str, Source]]:
        inside: list[Refused] = []
        for name, archive in archives.items():
            folder = PurePosixPath(name).with_suffix("") if len(archives) > 1 else PurePosixPath()
            yield from (((folder / inner).as_posix(), source) for inner, source in archive.files())
            tables.update({(folder / table).as_posix(): content for table, content in archive.tables.items()})
            inside += archive.refused
        refused[:] = outside + inside

    return MediaCollection(files, tables, refused, collection.containers)


def sound_names(path: Path) -> list[str]:
    """Names of the files that `open_sounds` would open, without hidden files and metadata. No file is read.

    Raises UserError like `afresh.data.media_folder.file_names`.
    """
    names = file_names(path)
    if not path.is_dir() or any(PurePosixPath(n).suffix.lower() in SUFFIXES for n in names):
        return names
    archives = [n for n in names if PurePosixPath(n).suffix.lower() in SOUND_FILES.containers]
    inside = [f"{a}/{n}" for a in archives for n in file_names(path / a)]
    return [n for n in names if n not in archives] + inside


def map_sounds(f: Callable[[Source], A], collection: MediaCollection) -> Iterator[tuple[str, A | str]]:
    """Apply `f` to each sound in threads: (name, result, or the message of a FileError) in order, AT_ONCE at a time.

    Threads are effective because libsndfile and soxr release the interpreter's lock.
    """

    def attempt(file: tuple[str, Source]) -> tuple[str, A | str]:
        try:
            return file[0], f(file[1])
        except FileError as error:
            return file[0], str(error)

    iterator = collection.files()
    with ThreadPoolExecutor(THREADS) as pool:
        while chunk := list(itertools.islice(iterator, AT_ONCE)):
            yield from pool.map(attempt, chunk)


# --------------------------------------------------------------------------- file names


def columns_from_names(names: Sequence[str], pattern: str) -> dict[str, dict[str, str]]:
    """Column -> file name -> value, from the parts between `_` in file names without folder and suffix.

    `pattern` names the parts in order, with - for a part to ignore and ... at the end for any further parts: with
    "digit,-", the file 7_32.wav has the digit 7. Raises UserError for a pattern that names nothing, or a part twice,
    and for files that do not match it.
    """
    parts = {name: PurePosixPath(name).stem.split("_") for name in names}
    columns = [p.strip() for p in pattern.split(",")]
    rest = columns[-1] == REST
    columns = columns[:-1] if rest else columns
    used = [c for c in columns if c != "-"]
    if not used or len(set(used)) < len(used) or not all(c.replace("_", "").isalnum() for c in used):
        raise UserError(
            f"names={pattern!r} is not a pattern. Name the parts of the file names between _ in order, with - for a "
            "part to ignore and ... for further parts: `data.names=digit,speaker,-` for 7_anna_32.wav, or "
            "`data.names=class,...`."
        )
    wrong = [n for n, p in parts.items() if len(p) < len(columns) or (len(p) > len(columns) and not rest) or "" in p]
    if wrong:
        more = f" and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""
        raise UserError(
            f"{len(wrong):,} of {len(parts):,} file names do not match names={pattern} ({len(columns)} parts between "
            f"_): {', '.join(wrong[:5])}{more}. Rename or remove them, or change the pattern (... at the end allows "
            "further parts)."
        )
    return {c: {name: p[i] for name, p in parts.items()} for i, c in enumerate(columns) if c != "-"}
