"""A folder of sounds, an archive of one, or a folder of archives, to names and contents; columns from file names."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from afresh.core import Refused, UserError
from afresh.data.audio.sounds import READ, SUFFIXES, SoundError, Source
from afresh.data.media_folder import Media, MediaCollection, file_names, open_folder, open_zip

SOUND_FILES = Media("sound", SUFFIXES, READ, "audio")
THREADS = 4  # each holds a sound while it is read
AT_ONCE = 16  # sounds held as their archive's bytes, or as what was made of them
VALUES = (2, 60)  # different values of a part of the names that may be a column
REST = "..."  # at the end of a pattern: any further parts, or none

A = TypeVar("A")


def open_sounds(path: Path) -> MediaCollection:
    """A folder, a .zip, or a folder that holds no sound but .zip files: several of these count as folders of their
    names, a single one is read as if it were given.

    Raises UserError when the path is missing, is another kind of file, or an empty folder; going through the files, for
    an archive that is damaged or a bomb.
    """
    if not path.is_dir():
        if not path.exists() or path.suffix.lower() != ".zip":
            given = "is one file" if path.exists() else "does not exist"
            raise UserError(f"{path} {given}. Give a folder of sounds ({READ}) or a .zip of one.")
        return open_zip(path, SOUND_FILES)
    found = open_folder(path, SOUND_FILES)
    if not found.containers or next(found.files(), None) is not None:
        return found
    archives = {c.relative_to(path).as_posix(): open_zip(c, SOUND_FILES) for c in found.containers}
    tables = dict(found.tables)
    outside = [r for r in found.refused if r.source not in archives]
    refused = list(outside)

    def files() -> Iterator[tuple[str, Source]]:
        inside: list[Refused] = []
        for name, archive in archives.items():
            folder = PurePosixPath(name).with_suffix("") if len(archives) > 1 else PurePosixPath()
            yield from (((folder / inner).as_posix(), source) for inner, source in archive.files())
            tables.update({(folder / table).as_posix(): content for table, content in archive.tables.items()})
            inside += archive.refused
        refused[:] = outside + inside

    return MediaCollection(files, tables, refused, found.containers)


def sound_names(path: Path) -> list[str]:
    """Names of the files in what `open_sounds` opens, hidden ones and metadata apart, without reading any.

    Raises UserError as `afresh.data.media_folder.file_names`.
    """
    names = file_names(path)
    if not path.is_dir() or any(PurePosixPath(n).suffix.lower() in SUFFIXES for n in names):
        return names
    archives = [n for n in names if PurePosixPath(n).suffix.lower() in SOUND_FILES.containers]
    inside = [f"{a}/{n}" for a in archives for n in file_names(path / a)]
    return [n for n in names if n not in archives] + inside


def map_sounds(f: Callable[[Source], A], found: MediaCollection) -> Iterator[tuple[str, A | str]]:
    """(name, `f` of the file, or the reason of its SoundError), in order; AT_ONCE at a time, in threads.

    Threads do: libsndfile and soxr work without the interpreter's lock.
    """

    def attempt(file: tuple[str, Source]) -> tuple[str, A | str]:
        try:
            return file[0], f(file[1])
        except SoundError as error:
            return file[0], str(error)

    waiting = found.files()
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(itertools.islice(waiting, AT_ONCE)):
            yield from pool.map(attempt, some)


# --------------------------------------------------------------------------- file names


def columns_from_names(names: Sequence[str], pattern: str | None = None) -> dict[str, dict[str, str]]:
    """Column -> name -> value, from file names without folder and suffix, split at each `_`.

    `pattern` names the parts in order, - for one to leave out, with ... at the end for any further ones: "digit,-"
    makes 7 of 7_32.wav. Without a pattern, each part that most files have and that takes 2 to 60 values, every one in
    two files or more, is a column part1, part2, ... . Raises UserError for a pattern that names nothing or a part
    twice, and for files that do not fit it.
    """
    parts = {name: PurePosixPath(name).stem.split("_") for name in names}
    if pattern is None:
        return _shared_parts(parts)
    wanted = [p.strip() for p in pattern.split(",")]
    rest = wanted[-1] == REST
    wanted = wanted[:-1] if rest else wanted
    kept = [w for w in wanted if w != "-"]
    if not kept or len(set(kept)) < len(kept) or not all(w.replace("_", "").isalnum() for w in kept):
        raise UserError(
            f"names {pattern!r} is no pattern. Name the parts of the file names between _ in order, - for one to leave "
            "out, ... for any further ones: names=digit,speaker,- for 7_anna_32.wav, or names=class,... ."
        )
    wrong = [n for n, p in parts.items() if len(p) < len(wanted) or (len(p) > len(wanted) and not rest) or "" in p]
    if wrong:
        more = f" and {len(wrong) - 5:,} more" if len(wrong) > 5 else ""
        raise UserError(
            f"{len(wrong):,} of {len(parts):,} file names do not fit names={pattern} ({len(wanted)} parts between _): "
            f"{', '.join(wrong[:5])}{more}. Rename or remove them, or change the pattern (... at its end allows any "
            "further parts)."
        )
    return {w: {name: p[i] for name, p in parts.items()} for i, w in enumerate(wanted) if w != "-"}


def _shared_parts(parts: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    columns = {}
    for i in range(max(map(len, parts.values()), default=0)):
        column = {name: p[i] for name, p in parts.items() if i < len(p)}
        count = Counter(column.values())
        if 2 * len(column) > len(parts) and VALUES[0] <= len(count) <= VALUES[1] and min(count.values()) > 1:
            columns[f"part{i + 1}"] = column
    return columns
