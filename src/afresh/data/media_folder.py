"""A folder of pictures or sounds (or an archive of one) to names with splits, class labels and attributes."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pyarrow
import pyarrow.parquet

from afresh.core import Corpus, Refused, UserError
from afresh.data.files import JUNK, DataFile, read_zip, walk

TRAINING = frozenset({"train", "training"})
HELD_OUT = frozenset({"validation", "valid", "val", "dev", "test", "testing"})
TABLES = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet"})
FILE_NAME = "file_name"
MAX_TABLE = 1 << 29  # bytes of one metadata file

Source = Path | bytes  # a file, or a file's content (from an archive)
Damaged = Literal["skip", "stop"]  # what to do about what cannot be read


@dataclass(frozen=True)
class Media:
    """A kind of file: its word ("picture") for messages; suffixes, lower-cased with the dot; what is read, listed for
    messages; the word in columns of the metadata that may name others beside; suffixes of files that may hold many."""

    word: str
    suffixes: frozenset[str]
    read: str
    column: str
    containers: frozenset[str] = frozenset({".zip"})

    def not_read(self, suffix: str) -> str:
        return f"not a {self.word} that is read ({suffix or 'no suffix'}); {self.read} are"


@dataclass(frozen=True)
class MediaCollection:
    """Files of one kind with the metadata files beside them, and what is neither.

    `files()` gives (name, where it is or its content) and can be gone through again. For an archive, `tables`
    and `refused` are filled by going through it to the end. `containers` are archives and arrays in a folder.
    """

    files: Callable[[], Iterator[tuple[str, Source]]]
    tables: dict[str, bytes]
    refused: list[Refused]
    containers: tuple[Path, ...] = ()


def open_folder(path: Path, media: Media) -> MediaCollection:
    """A folder, not its hidden files. Raises UserError when it is missing, unreadable or empty."""
    found, refused = walk(path)
    files = [(f.name, f.path) for f in found if f.suffix in media.suffixes]
    tables = {f.name: _table_bytes(f) for f in found if f.path.name.lower() in TABLES}
    containers = tuple(f.path for f in found if f.suffix in media.containers)
    others = [f for f in found if f.suffix not in media.suffixes and f.name not in tables]
    refused = [
        r if PurePosixPath(r.source).suffix.lower() in media.suffixes else replace(r, damaged=False) for r in refused
    ]
    refused += [Refused(f.name, media.not_read(f.suffix)) for f in others]
    return MediaCollection(lambda: iter(files), tables, refused, containers)


def open_zip(path: Path, media: Media) -> MediaCollection:
    """An archive of a folder; nothing is unpacked to disk.

    Going through the files raises UserError for an archive that is damaged or a bomb.
    """
    tables: dict[str, bytes] = {}
    refused: list[Refused] = []

    def files() -> Iterator[tuple[str, Source]]:
        members, bad = read_zip(path, media.suffixes | {PurePosixPath(t).suffix for t in TABLES})
        others: list[Refused] = []
        for member, content in members:
            name = PurePosixPath(member.replace("\\", "/"))
            if name.name.lower() in TABLES:
                tables[name.as_posix()] = content
            elif name.suffix.lower() in media.suffixes:
                yield name.as_posix(), content
            else:
                others.append(Refused(f"{path.name}: {member}", media.not_read(name.suffix)))
        refused[:] = bad + others

    return MediaCollection(files, tables, refused)


def file_names(path: Path) -> list[str]:
    """Names of the files in a folder or a .zip, hidden ones and metadata apart, without reading any.

    Raises UserError as `open_folder`, or for a .zip that is damaged.
    """
    if path.is_dir():
        names = [f.name for f in walk(path)[0]]
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/")]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path} is not a .zip archive that can be read: {error}.") from None
    kept = [n for n in names if not any(p.startswith(".") or p in JUNK for p in PurePosixPath(n).parts)]
    return [n for n in kept if PurePosixPath(n).name.lower() not in TABLES]


def _table_bytes(file: DataFile) -> bytes:
    if file.size > MAX_TABLE:
        raise UserError(f"{file.path} has {file.size:,} bytes; at most {MAX_TABLE:,} are read. Leave columns out.")
    return file.path.read_bytes()


def stop_on_damage(corpus: Corpus, damaged: Damaged) -> Corpus:
    """The same. Raises UserError, listing it, for what is damaged, where that is to end the reading."""
    lost = [r for r in corpus.refused if r.damaged]
    if damaged == "skip" or not lost:
        return corpus
    listed = "".join(f"\n  {r.source}: {r.reason}" for r in lost[:20])
    more = f"\n  and {len(lost) - 20:,} more" if len(lost) > 20 else ""
    raise UserError(
        f"{len(lost):,} cannot be read, or not whole, and to stop then was asked for (damaged=stop). Mend or remove "
        f"them, or use what can be read: --data damaged=skip.{listed}{more}"
    )


@dataclass(frozen=True)
class Layout:
    """What the folders say of each file, by its name (a relative path with slashes)."""

    splits: Mapping[str, str | None]
    labels: Mapping[str, str]  # empty when the folders are no classes
    notes: list[str] = field(default_factory=list)


def layout(names: Sequence[str], media: Media) -> Layout:
    """Splits from top folders train and validation (val, test, ...), then classes from the next level.

    A folder that holds everything says nothing and is looked through.
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
        notes.append(f"everything is in a folder {roots.pop()!r}, with no other part beside it: no split of its own")
    labels = {n: parts[0] for n, parts in inner.items() if len(parts) > 1}
    classes = set(labels.values()) or set(roots[-1:])
    if len(classes) < 2:
        if classes:
            notes.append(f"one class folder only ({next(iter(classes))}): no label")
        return Layout(splits, {}, notes)
    if len(classes) > max(2, len(labels) // 2):
        notes.append(f"{len(classes):,} folders for {len(labels):,} {media.word}s are too many to be classes: no label")
        return Layout(splits, {}, notes)
    deeper = sum(len(parts) > 2 for parts in inner.values())
    if deeper:
        notes.append(f"{deeper:,} {media.word}s lie in folders inside class folders: the outermost folder is the label")
    return Layout(splits, labels, notes)


def _without_root(parts: dict[str, tuple[str, ...]]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Take off leading folders that all names share; returns them too."""
    roots: list[str] = []
    while parts and all(len(p) > 1 for p in parts.values()) and len({p[0] for p in parts.values()}) == 1:
        roots.append(next(iter(parts.values()))[0])
        parts = {n: p[1:] for n, p in parts.items()}
    return parts, roots


@dataclass(frozen=True)
class Attributes:
    """Columns of the metadata files, aligned with the files' names, and rows that are of no use."""

    columns: Mapping[str, list[Any]]
    described: frozenset[str]  # names that have a row
    refused: list[Refused]


def attributes(tables: Mapping[str, bytes], names: Sequence[str], media: Media) -> Attributes:
    """Read metadata files (name -> content), whose `file_name` is relative to the file's own folder. So are the names
    in columns of other files of the kind; here they become names like `names`.

    Raises UserError for a file that cannot be read at all or has no column `file_name`.
    """
    index = {name: i for i, name in enumerate(names)}
    columns: dict[str, list[Any]] = {}
    seen: set[str] = set()
    refused: list[Refused] = []
    for table, content in sorted(tables.items()):
        rows, bad = _rows(table, content, media)
        refused += bad
        for line, row in rows:
            where = f"{table}, row {line}"
            target, reason = _target(table, row.get(FILE_NAME), index, media)
            if reason is None and target in seen:
                reason = f"{target} has another row already"
            if reason is not None:
                refused.append(Refused(where, reason, damaged=True))
                continue
            seen.add(target)
            for key, value in row.items():
                if key != FILE_NAME:
                    columns.setdefault(key, [None] * len(names))[index[target]] = _from_root(table, key, value, media)
    return Attributes(columns, frozenset(seen), refused)


def names_file(column: str, value: Any, media: Media) -> bool:
    """Whether a value names a file beside, by its column's name and its suffix; an address on the web does not."""
    pattern = rf"{media.column}_.+|.+_{media.column}|.+_file_name"
    if not isinstance(value, str) or "://" in value or not re.fullmatch(pattern, column.strip(), re.IGNORECASE):
        return False
    return PurePosixPath(value).suffix.lower() in media.suffixes


def _from_root(table: str, column: str, value: Any, media: Media) -> Any:
    if not names_file(column, value, media):
        return value
    return (PurePosixPath(table).parent / value.strip().replace("\\", "/")).as_posix()


def _target(table: str, file_name: Any, index: Mapping[str, int], media: Media) -> tuple[str, str | None]:
    """The file that a row describes, or why there is none."""
    if not isinstance(file_name, str) or not file_name:
        return "", f"no {FILE_NAME}"
    relative = PurePosixPath(file_name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in relative.parts[0]:
        return "", f"{FILE_NAME} {file_name!r} leads out of the folder"
    target = (PurePosixPath(table).parent / relative).as_posix()
    return target, None if target in index else f"{FILE_NAME} {file_name!r} is no {media.word} that could be used"


def _rows(table: str, content: bytes, media: Media) -> tuple[list[tuple[int, dict[str, Any]]], list[Refused]]:
    """Numbered rows (from 1) of a metadata file, and rows that cannot be read."""
    if table.lower().endswith(".parquet"):
        try:
            listed = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{table} is no readable Parquet file ({error}). Write it again.") from None
        rows: list[tuple[int, dict[str, Any]]] = list(enumerate(listed, 1))
        bad: list[Refused] = []
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{table} is not UTF-8 ({error}). Save it as UTF-8.") from None
        rows, bad = _csv_rows(table, text) if table.lower().endswith(".csv") else _json_rows(table, text)
    if rows and not any(FILE_NAME in row for _, row in rows):
        raise UserError(
            f"{table} has no column {FILE_NAME!r} (it has {', '.join(map(str, rows[0][1])) or 'none'}). "
            f"Add {FILE_NAME}: the path of each {media.word} from the folder of {table}."
        )
    return rows, bad


def _csv_rows(table: str, text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[Refused]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[Refused] = []
    try:
        head = next(reader, [])
        if len(set(head)) < len(head):
            raise UserError(f"{table} has two columns of the same name ({', '.join(head)}). Rename one.")
        for number, cells in enumerate(reader, 1):
            if len(cells) == len(head):
                rows.append((number, dict(zip(head, cells, strict=True))))
            elif cells:
                why = f"{len(cells)} cells, the header has {len(head)}"
                bad.append(Refused(f"{table}, row {number}", why, damaged=True))
    except csv.Error as error:
        raise UserError(f"{table} is no readable CSV (line {reader.line_num}: {error}). Mend or quote it.") from None
    return rows, bad


def _json_rows(table: str, text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[Refused]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[Refused] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.append(Refused(f"{table}, row {number}", f"not JSON ({error})", damaged=True))
            continue
        if isinstance(value, dict):
            rows.append((number, value))
        else:
            bad.append(Refused(f"{table}, row {number}", "not a JSON object", damaged=True))
    return rows, bad
