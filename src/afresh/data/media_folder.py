"""A folder of images or sounds, or an archive of one: names, splits, class labels and metadata."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from afresh.core import Corpus, Omission, Refused, UserError
from afresh.data.files import (
    MB,
    DataFile,
    FileError,
    Given,
    is_hidden,
    open_file,
    path_of,
    read_usable,
    read_zip,
    suffix_of,
    walk,
    zip_files,
    zip_names,
)
from afresh.data.refusals import refusal_lines
from afresh.data.split import HELD_OUT, TRAINING

TABLES = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
FILE_NAME = "file_name"
BESIDE = "the .txt files"  # the name of the table of captions that lie beside their files
MOST_COLUMNS = 1_000  # of the metadata: each may become a condition
CAPTION_MB = 1  # of a text that lies beside its file
MAX_TABLE = 1 << 29  # bytes of one metadata file

Source = Given | bytes  # a file, or the content of a file in an archive
Damaged = Annotated[
    Literal["skip", "stop"],
    Field(description="files that cannot be read: skip and report them, or stop"),
]


@dataclass(frozen=True)
class Media:
    """A kind of file: the word for it in messages ("image"), its suffixes (lower case, with the dot), the supported
    formats as listed in messages, the word in names of metadata columns that hold file names, and the suffixes of
    files that may contain many."""

    word: str
    suffixes: frozenset[str]
    formats: str
    column: str
    containers: frozenset[str] = frozenset({".zip"})

    def unsupported(self, suffix: str) -> str:
        return f"unsupported {self.word} format ({suffix or 'no suffix'}); supported are {self.formats}"

    def require(self, count: int, path: Path, refused: Sequence[Refused]) -> None:
        """Raises UserError if `count`, the number of usable files in `path`, is 0."""
        if count == 0:
            raise UserError(f"No usable {self.word} in {path} ({self.formats}).", lines=refusal_lines(refused))


@dataclass(frozen=True)
class MediaCollection:
    """Files of one kind, the metadata files that describe them, and files that are neither.

    `files()` iterates over (name, path or content), any number of times. For an archive, `tables` and `refused` are
    complete only after an iteration. `containers` are archives and array files in a folder.
    """

    files: Callable[[], Iterator[tuple[str, Source]]]
    tables: dict[str, bytes]
    refused: list[Refused]
    containers: tuple[DataFile, ...] = ()


def open_folder(path: Path, media: Media) -> MediaCollection:
    """Open a folder, without its hidden files. Raises UserError if it is missing, unreadable or empty."""
    every, refused = walk(path)
    files = [(f.name, f) for f in every if f.suffix in media.suffixes]
    tables = {f.name: _table_bytes(f) for f in every if f.path.name.lower() in TABLES}
    containers = tuple(f for f in every if f.suffix in media.containers)
    beside = {} if tables else captions_beside((f.name for f in every), media)
    if beside:
        texts = (f for f in every if f.name in beside)
        captions = {beside[f.name]: text for f, text in read_usable(texts, lambda f: None, CAPTION_MB, refused)}
        tables[BESIDE] = _caption_table(captions)
    others = [f for f in every if f.suffix not in media.suffixes and f.name not in {*tables, *beside}]
    refused = [
        r if PurePosixPath(r.source).suffix.lower() in media.suffixes else replace(r, damaged=False) for r in refused
    ]
    refused += [Refused(f.name, media.unsupported(f.suffix)) for f in others]
    return MediaCollection(lambda: iter(files), tables, refused, containers)


def open_zip(file: Given, media: Media) -> MediaCollection:
    """Open an archive of a folder without unpacking it to disk.

    Iterating over its files raises UserError if the archive is damaged or a decompression bomb.
    """
    tables: dict[str, bytes] = {}
    refused: list[Refused] = []
    path = path_of(file)
    names = [name.replace("\\", "/") for name in zip_names(file)]
    has_table = any(PurePosixPath(n).name.lower() in TABLES for n in names)
    beside = {} if has_table else captions_beside(names, media)

    def files() -> Iterator[tuple[str, Source]]:
        read = media.suffixes | {PurePosixPath(t).suffix for t in (*TABLES, *beside)}
        members, refused_members = read_zip(file, read)
        others: list[Refused] = []
        captions: dict[str, bytes] = {}
        for member, content in members:
            name = PurePosixPath(member.replace("\\", "/"))
            if name.name.lower() in TABLES:
                tables[name.as_posix()] = content
            elif name.as_posix() in beside:
                captions[beside[name.as_posix()]] = content
            elif name.suffix.lower() in media.suffixes:
                yield name.as_posix(), content
            else:
                others.append(Refused(f"{path.name}: {member}", media.unsupported(name.suffix)))
        if captions:
            tables[BESIDE] = _caption_table(captions)
        refused[:] = refused_members + others

    return MediaCollection(files, tables, refused)


def file_names(path: Path) -> list[str]:
    """Names of the files in a folder or a .zip archive, without hidden files and metadata. No file is read.

    Raises UserError like `open_folder`, or if the archive is damaged.
    """
    names = [f.name for f in walk(path)[0]] if path.is_dir() else [i.filename for i in zip_files(path)]
    names = [n for n in names if not is_hidden(n) and PurePosixPath(n).name.lower() not in TABLES]
    beside = captions_beside(names)
    return [n for n in names if n not in beside]


def captions_beside(names: Iterable[str], media: Media | None = None) -> dict[str, str]:
    """The .txt files that have the name of another file, and that file, of `media` if given: the text is its
    caption."""
    names = list(names)
    others = {str(PurePosixPath(n).with_suffix("")): n for n in names if PurePosixPath(n).suffix.lower() != ".txt"}
    texts = (n for n in names if PurePosixPath(n).suffix.lower() == ".txt")
    found = {t: others[stem] for t in texts if (stem := str(PurePosixPath(t).with_suffix(""))) in others}
    return {t: n for t, n in found.items() if media is None or PurePosixPath(n).suffix.lower() in media.suffixes}


def _caption_table(captions: Mapping[str, bytes]) -> bytes:
    """Captions by the names of their files, as a metadata file. What is not UTF-8 is replaced."""
    rows = ({FILE_NAME: n, "text": c.decode("utf-8-sig", "replace").strip()} for n, c in captions.items())
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _table_bytes(file: DataFile) -> bytes:
    if file.size > MAX_TABLE:
        raise UserError(f"{file.path} has {file.size:,} bytes; at most {MAX_TABLE:,} are read. Remove columns.")
    try:
        with open_file(file) as stream:
            return stream.read(MAX_TABLE)
    except (FileError, OSError) as error:
        raise UserError(f"{file.path} cannot be used: {error}.") from None


def stop_on_damage(corpus: Corpus, damaged: Damaged) -> Corpus:
    """The corpus itself. Raises UserError, listing the damaged inputs, if there are any and `damaged` is "stop"."""
    lost = [r for r in corpus.refused if r.damaged]
    if damaged == "skip" or not lost:
        return corpus
    listed = [f"{r.source}: {r.reason}" for r in lost[:20]]
    if len(lost) > 20:
        listed.append(f"and {len(lost) - 20:,} more")
    raise UserError(
        f"{len(lost):,} inputs cannot be read completely, and `data.damaged=stop` was set. Repair or remove "
        f"them, or set `data.damaged=skip` to use what can be read.",
        lines=listed,
    )


@dataclass(frozen=True)
class Layout:
    """Split and label of each file according to its folders, by the file's name (a relative path with slashes)."""

    splits: Mapping[str, str | None]
    labels: Mapping[str, str]  # empty if the folders are not classes
    notes: list[str] = field(default_factory=list)


def layout(names: Sequence[str], media: Media) -> Layout:
    """Splits from top-level folders train and validation (val, test, ...), then classes from the next level.

    Leading folders that contain everything are ignored.
    """
    notes: list[str] = []
    inner, roots = _without_root({n: PurePosixPath(n).parts for n in names})
    splits: dict[str, str | None] = dict.fromkeys(names)
    tops = {parts[0].lower() for parts in inner.values() if len(parts) > 1}
    if tops & TRAINING and tops & HELD_OUT and tops <= TRAINING | HELD_OUT:
        for name, parts in inner.items():
            held = len(parts) > 1 and parts[0].lower() in HELD_OUT
            splits[name] = "validation" if held else "train"
        inner = {n: parts[1:] if len(parts) > 1 else parts for n, parts in inner.items()}
        count = Counter(splits.values())
        notes.append(
            f"the folders {', '.join(sorted(tops))} are the data's own split: "
            f"{count['train']:,} to train, {count['validation']:,} held out"
        )
        roots = []
    elif roots and roots[-1].lower() in TRAINING | HELD_OUT:
        notes.append(f"all files are in a folder {roots.pop()!r} and there is no other part: the data has no split")
    labels = {n: parts[0] for n, parts in inner.items() if len(parts) > 1}
    classes = set(labels.values()) or set(roots[-1:])
    if len(classes) < 2:
        if classes:
            notes.append(Omission(f"only one class folder ({next(iter(classes))}): no label"))
        return Layout(splits, {}, notes)
    if len(classes) > max(2, len(labels) // 2):
        notes.append(
            Omission(f"{len(classes):,} folders for {len(labels):,} {media.word}s are too many to be classes: no label")
        )
        return Layout(splits, {}, notes)
    deeper = sum(len(parts) > 2 for parts in inner.values())
    if deeper:
        notes.append(f"{deeper:,} {media.word}s are in subfolders of class folders: the outermost folder is the label")
    return Layout(splits, labels, notes)


def _without_root(parts: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The parts of names without the leading folders that all of them share, and those folders."""
    roots: list[str] = []
    while parts and all(len(p) > 1 for p in parts.values()) and len({p[0] for p in parts.values()}) == 1:
        roots.append(next(iter(parts.values()))[0])
        parts = {n: p[1:] for n, p in parts.items()}
    return parts, roots


@dataclass(frozen=True)
class Attributes:
    """Columns of the metadata files, aligned with the files' names, and rows that cannot be used."""

    columns: Mapping[str, list[Any]]
    described: frozenset[str]  # names that have a row
    refused: list[Refused]


def attributes(tables: Mapping[str, bytes], names: Sequence[str], media: Media) -> Attributes:
    """Read metadata files (name -> content).

    The column `file_name`, and other columns that name files of the kind, hold paths relative to the metadata file's
    folder; the result holds names as in `names`. Raises UserError for a metadata file that cannot be read or has no
    column `file_name`.
    """
    index = {name: i for i, name in enumerate(names)}
    columns: dict[str, list[Any]] = {}
    described: set[str] = set()
    refused: list[Refused] = []
    for table, content in sorted(tables.items()):
        rows, refused_rows = _rows(table, content, media)
        refused += refused_rows
        for line, row in rows:
            where = f"{table}, row {line}"
            target, reason = _target(table, row.get(FILE_NAME), index, media)
            if reason is None and target in described:
                reason = f"{target} has another row already"
            if reason is not None:
                refused.append(Refused(where, reason, damaged=True))
                continue
            described.add(target)
            for key, value in row.items():
                if key != FILE_NAME:
                    if len(columns) == MOST_COLUMNS and key not in columns:
                        raise UserError(
                            f"{table} has more than {MOST_COLUMNS:,} columns. Keep those that should be conditions."
                        )
                    columns.setdefault(key, [None] * len(names))[index[target]] = _from_root(table, key, value, media)
    return Attributes(columns, frozenset(described), refused)


def names_file(column: str, value: Any, media: Media) -> bool:
    """Whether a value is the name of another file, judging by the column's name and the suffix. URLs do not count."""
    pattern = rf"{media.column}_.+|.+_{media.column}|.+_file_name"
    if not isinstance(value, str) or "://" in value or not re.fullmatch(pattern, column.strip(), re.IGNORECASE):
        return False
    return PurePosixPath(value).suffix.lower() in media.suffixes


def _from_root(table: str, column: str, value: Any, media: Media) -> Any:
    if not names_file(column, value, media):
        return value
    return (PurePosixPath(table).parent / value.strip().replace("\\", "/")).as_posix()


def _target(table: str, file_name: Any, index: Mapping[str, int], media: Media) -> tuple[str, str | None]:
    """The name of the file that a row describes, and why it cannot be used (None if it can)."""
    if not isinstance(file_name, str) or not file_name:
        return "", f"no {FILE_NAME}"
    relative = PurePosixPath(file_name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or any(":" in part for part in relative.parts[:1]):
        return "", f"{FILE_NAME} {file_name!r} leads out of the folder"
    target = (PurePosixPath(table).parent / relative).as_posix()
    usable = bool(relative.parts) and target in index
    return target, None if usable else f"{FILE_NAME} {file_name!r} is not a usable {media.word}"


def _rows(table: str, content: bytes, media: Media) -> tuple[list[tuple[int, Mapping[str, Any]]], list[Refused]]:
    """Numbered rows (from 1) of a metadata file, and rows that cannot be read."""
    from afresh.data.tables.rows import read_table

    try:
        read = read_table(suffix_of(table), content, MAX_TABLE // MB, nested=True)
    except FileError as error:
        raise UserError(f"{table} cannot be used: {error}.") from None
    if read.rows and not any(FILE_NAME in row for _, row in read.rows):
        raise UserError(
            f"{table} has no column {FILE_NAME!r} (it has {', '.join(map(str, read.rows[0][1])) or 'none'}). "
            f"Add {FILE_NAME}: the path of each {media.word} relative to the folder of {table}."
        )
    return read.rows, [Refused(f"{table}, row {n}", reason, damaged=True) for n, reason in read.bad]
