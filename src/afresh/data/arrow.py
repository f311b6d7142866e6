"""Tables with images, sounds or class names: Parquet, Arrow and Feather files as Hugging Face's datasets writes them.

The library itself is not needed: the key `huggingface` of a file's metadata names the features, and an image or a sound
is a structure of its bytes and its path. A path without bytes is never followed, as a table of someone else could name
any file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from afresh.core import UserError, events
from afresh.data.arrow_messages import unpacked_bytes
from afresh.data.arrow_values import rows
from afresh.data.files import MB, DataFile, FileError, check_memory, mapped, read_zip, walk, zip_names
from afresh.data.imported import (
    IMAGES,
    KINDS,
    SOUNDS,
    ImportedItem,
    Kind,
    MediaFile,
    content_key,
    image_column,
    media_file,
    write_aside,
    written_aside,
)
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.media_folder import TABLES
from afresh.data.split import split_of_name
from afresh.data.tables.parquet import MADE, MANY, MOST_FOR_A_BYTE, RATIO, SECONDS, read_schema, stream_parquet

SUFFIXES = frozenset({".parquet", ".arrow", ".feather"})
FEATURES: Mapping[str, Kind] = {"Image": "image", "Audio": "sound"}
UNREAD = ("Image", "Audio", "Video", "Pdf")  # features that are read in a column of their own, or not at all
CACHES = re.compile(r"(cache-|indices-|tmp).*\.arrow")  # of the library, beside the data
DESCRIBES = re.compile(r"(readme|licen[cs]e)(\..*)?|(state|dataset_infos?|dataset_dict)\.json")  # the data
MAX_MB = 4096  # of one file, when decoded
UNPACKED = 512 * MB  # of a message and all dictionaries, or RATIO times the size of the file
MARK = b"ARROW1\0\0"  # before the first message of a file with a table of contents

Row = dict[str, Any]


@dataclass(frozen=True)
class TableFile:
    """A file of rows: what is in its columns, by their names."""

    file: DataFile
    media: Mapping[str, Kind]
    classes: Mapping[str, Sequence[str]]  # names of classes
    unread: tuple[str, ...]  # columns of several images or sounds a row, or of videos


def of_tables(path: Path, modality: str | None) -> Path | None:
    """A folder into which the tables of a path were written aside, as images or sounds or texts; None if there are
    none, or the readers of files know them.

    `modality` is the one that was asked for, None to choose images or sounds where there are any. Raises UserError if
    the tables have both, if they lie beside images or sounds, or if one cannot be read.
    """
    if path.is_file() and path.suffix.lower() == ".zip":
        return _of_zip(path, modality)
    files, others = _tables(path)
    return _written(path, files, others, modality) if files else None


def _of_zip(path: Path, modality: str | None) -> Path | None:
    """`of_tables` for an archive: its tables are unpacked for as long as they are read, if it holds nothing else."""
    names = [PurePosixPath(n.replace("\\", "/")) for n in zip_names(path)]
    names = [n for n in names if not DESCRIBES.fullmatch(n.name.lower())]
    if not names or any(n.suffix.lower() not in SUFFIXES or n.name.lower() in TABLES for n in names):
        return None
    with TemporaryDirectory() as unpacked:
        members, _ = read_zip(path, SUFFIXES)
        for name, content in members:
            file = Path(unpacked) / name.replace("\\", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        files, others = _tables(Path(unpacked))
        return _written(path, files, others, modality) if files else None


def _written(path: Path, files: Sequence[DataFile], others: Sequence[str], modality: str | None) -> Path | None:
    """The folder into which these tables of `path` were written aside; None if the readers of files know them."""
    try:
        tables = [t for f in files if (t := _looked_at(f, alone=len(files) == 1)) is not None]
        kind = _kind(path, tables, others, modality)
        if kind is None or (kind == "text" and others):
            return None
        if others:
            events.warning(f"Only the tables are read; left out: {', '.join(others[:6])}", "files_left_out")
        key = content_key(kind, files)
        return written_aside(kind, key) or write_aside(kind, _entries(tables, kind), key)
    except FileError as error:
        raise UserError(f"{path} cannot be used: {error}.") from None


def _looked_at(file: DataFile, *, alone: bool) -> TableFile | None:
    """What is in a file; None, with a warning, for one among others that cannot be read."""
    try:
        return look(file)
    except FileError as error:
        if alone:
            raise
        events.warning(f"{error}; it is left out", "files_left_out")
        return None


def _tables(path: Path) -> tuple[list[DataFile], list[str]]:
    """The tables at a path, and the names of other files in the folder but those that only describe it."""
    if path.is_file():
        return (walk(path)[0] if path.suffix.lower() in SUFFIXES else []), []
    if not path.is_dir():
        return [], []
    files = [f for f in walk(path)[0] if not CACHES.fullmatch(f.path.name)]
    tables = [f for f in files if f.suffix in SUFFIXES and f.path.name.lower() not in TABLES]
    described = {f.name for f in tables}
    return tables, [f.name for f in files if f.name not in described and not DESCRIBES.fullmatch(f.path.name.lower())]


def _kind(path: Path, tables: Sequence[TableFile], others: Sequence[str], modality: str | None) -> Kind | None:
    """What to write aside; None if the readers of files know the tables."""
    found = {kind for t in tables for kind in t.media.values()}
    wanted = KINDS.get(modality or "")
    if wanted is not None:
        return wanted if wanted in found else None
    if modality is None and len(found) > 1:
        raise UserError(
            f"{path} has columns of images ({_names(tables, 'image')}) and of sounds ({_names(tables, 'sound')}). "
            "Choose what to learn: `modality=image` or `modality=audio`."
        )
    if modality is None and found:
        kind = found.pop()
        beside = [name for name in others if PurePosixPath(name).suffix.lower() in IMAGES | SOUNDS]
        if beside:
            raise UserError(
                f"{path} has image or sound files ({beside[0]}, ...) and also tables that hold {kind}s "
                f"({tables[0].file.name}, ...). Give a folder of one of the two."
            )
        return kind
    unread = sorted({c for t in tables for c in t.unread})
    if modality is None and unread:
        raise UserError(
            f"{path} has images, sounds or videos in a form that is not read, in the columns {', '.join(unread)}. "
            "Accepted are columns of one image or one sound in each row. To learn its texts all the same, choose "
            "`modality=text`."
        )
    return "text" if any(t.classes or t.file.suffix != ".parquet" for t in tables) else None


def _names(tables: Sequence[TableFile], kind: Kind) -> str:
    return ", ".join(dict.fromkeys(name for t in tables for name, k in t.media.items() if k == kind))


# --------------------------------------------------------------------------- reading


def look(file: DataFile) -> TableFile:
    """What is in the columns of a file. Raises FileError for one that cannot be read, unless it is Parquet."""
    try:
        schema = _schema(file)
    except FileError:
        if file.suffix == ".parquet":  # the reader of texts reports it among others
            return TableFile(file, {}, {}, ())
        raise
    features = _features(schema)
    media: dict[str, Kind] = {}
    unread = []
    for column in schema:
        feature = features.get(column.name, {})
        kind = FEATURES.get(str(feature.get("_type"))) if isinstance(feature, dict) else None
        if kind is None and not feature and _holds_files(column.type):
            kind = _kind_of_rows(file, column.name)
        if kind is not None:
            media[column.name] = kind
        elif any(f'"_type": "{name}"' in json.dumps(feature) for name in UNREAD):
            unread.append(column.name)
    classes = {
        name: tuple(map(str, f["names"]))
        for name, f in features.items()
        if isinstance(f, dict) and f.get("_type") == "ClassLabel" and isinstance(f.get("names"), list)
    }
    return TableFile(file, media, classes, tuple(unread))


def _features(schema: Any) -> dict[str, Any]:
    """The features that the library datasets wrote into a file. Empty if there are none."""
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = content["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_files(kind: Any) -> bool:
    """Whether values of a type may be files: bytes, or a structure of bytes and a path."""
    from pyarrow import types

    if types.is_struct(kind):
        return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _kind_of_rows(file: DataFile, column: str) -> Kind | None:
    """What the first file in a column is; None without one, or if the column cannot be read."""
    try:
        found = next((f for row in _rows(file, [column]) if (f := _file(row[column])) is not None), None)
    except FileError:
        return None
    return None if found is None else found.kind


def _schema(file: DataFile) -> Any:
    if file.suffix == ".parquet":
        return read_schema(file)
    with _reading(file), _open_arrow(file) as reader:
        return reader.schema


@contextmanager
def _reading(file: DataFile) -> Iterator[None]:
    """Every error within becomes a FileError that names the file."""
    try:
        with parsing(f"{file.suffix.removeprefix('.').capitalize()} file"):
            yield
    except FileError as error:
        raise FileError(str(error) if file.name in str(error) else f"{file.name}: {error}") from None


def _open_arrow(file: DataFile) -> Any:
    """A reader of an Arrow file as a stream, which one with a table of contents is between its marks."""
    import pyarrow

    return pyarrow.ipc.open_stream(_messages(file))


def _messages(file: DataFile) -> Any:
    """The file, mapped into memory, at its first message. Raises ValueError for one that is cut off."""
    import pyarrow

    source = pyarrow.BufferReader(mapped(file))
    marked = source.read(len(MARK)) == MARK
    if marked:
        source.seek(source.size() - len(MARK.rstrip(b"\0")))
        if not MARK.startswith(source.read()):
            raise ValueError("its end is missing")
    source.seek(len(MARK) if marked else 0)
    return source


def _check_messages(file: DataFile, meter: Meter) -> None:
    """Raises FileError for messages that unpack to more than fits, or to many times their size."""
    import pyarrow

    dictionaries = 0
    for message in pyarrow.ipc.MessageReader.open_stream(_messages(file)):
        meter.add()
        size = unpacked_bytes(message.metadata.to_pybytes(), message.body)
        dictionaries += size if message.type == "dictionary" else 0
        if size + dictionaries > max(UNPACKED, RATIO * file.size):
            raise FileError(f"{file.name} unpacks to more than {RATIO} times its size: a decompression bomb")
        check_memory(size + dictionaries)


def _rows(file: DataFile, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of a file. Raises FileError if it is damaged or too large."""
    if file.suffix == ".parquet":
        with _reading(file):
            yield from stream_parquet(file, MAX_MB, lambda schema: columns or schema.names)
        return
    meter = Meter(Limits(max(MADE, RATIO * file.size), max(MANY, MOST_FOR_A_BYTE * file.size), SECONDS))
    with _reading(file):
        _check_messages(file, meter)
        with _open_arrow(file) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield from rows(batch if columns is None else batch.select(columns), meter)


def named_rows(table: TableFile) -> Iterator[Row]:
    """The rows of a file, with the names of classes. Raises FileError if it is damaged or too large."""
    for row in _rows(table.file):
        yield {k: named_class(v, table.classes.get(k)) for k, v in row.items()}


def _file(value: Any) -> MediaFile | None:
    """The file in a value; a path alone is none."""
    if isinstance(value, dict):
        name, value = value.get("path"), value.get("bytes")
    else:
        name = None
    return media_file(value, name) if isinstance(value, bytes) and value else None


def _entries(tables: Sequence[TableFile], kind: Kind) -> Iterator[ImportedItem]:
    splits = {t.file.name: split_of_name(t.file.name) for t in tables}
    held_out = "validation" in splits.values()
    left_out = 0
    for table in tables:
        split = (splits[table.file.name] or "train") if held_out else None
        ours = [name for name, k in table.media.items() if k == kind]
        main = next((n for n in ours if n.lower() in ("image", "img", "audio")), ours[0] if ours else None)
        for row in _readable_rows(table, alone=len(tables) == 1):
            columns = {k: v for k, v in row.items() if k not in table.media and not isinstance(v, bytes)}
            if kind == "text":
                yield ImportedItem(columns, split=split)
                continue
            file = None if main is None else _file(row[main])
            if file is None:
                left_out += 1
                continue
            others = {n: _file(row[n]) for n in ours if n != main and kind == "image"}
            yield ImportedItem(columns, file, {image_column(n): f for n, f in others.items() if f is not None}, split)
    if left_out:
        events.warning(
            f"{left_out:,} rows have no {kind}, only its path, or a format that is not known: they are left out",
            "rows_left_out",
        )


def _readable_rows(table: TableFile, *, alone: bool) -> Iterator[Row]:
    """The rows of a file. Of one among others that is damaged, those before the damage, with a warning."""
    try:
        yield from named_rows(table)
    except FileError as error:
        if alone:
            raise
        events.warning(f"{error}; what comes after that is left out", "files_left_out")


def named_class(value: Any, names: Sequence[str] | None) -> Any:
    """A class by its name; a value below 0 means that the class is not known."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


SOURCE = of_tables
