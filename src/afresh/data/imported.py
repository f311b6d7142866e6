"""Data that no reader reads as it is, written aside once as a folder that all of them know.

Objects of Python and tables that hold images or sounds become files with a `metadata.jsonl`, or JSON lines of texts, in
a folder of the user's data, which no program clears as it may clear a cache: a run that is resumed or verified reads it
again. The folder is named after its content, so that the same data is kept once.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.audio import SUFFIXES as SOUNDS
from afresh.data.files import DataFile, open_file
from afresh.data.image import SUFFIXES as IMAGES
from afresh.data.preferences import preferences
from afresh.data.storage.files import free_bytes, write_file
from afresh.data.storage.folders import folder_aside, put_in_place

Kind = Literal["image", "sound", "text", "score"]
MAGIC = {  # the first bytes of a file: its suffix
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
    b"\xff\xf3": ".mp3",
    b"FORM": ".aiff",
}
KINDS: Mapping[str, Kind] = {"image": "image", "audio": "sound"}  # of modalities that learn media
VERSION = 1  # of how files become entries
FOLDERS: Mapping[Kind, str] = {"image": "images", "sound": "sounds", "text": "texts", "score": "scores"}


@dataclass(frozen=True)
class MediaFile:
    """The content of an image or sound file, with its suffix (lower case, with the dot)."""

    content: bytes
    suffix: str

    @property
    def kind(self) -> Kind:
        return kind_of(self.suffix)


@dataclass(frozen=True)
class KeptFile:
    """A file that never changes: it is linked to, so that it takes no further room, and copied only between disks."""

    path: Path

    @property
    def suffix(self) -> str:
        """In lower case, with the dot."""
        return self.path.suffix.lower()

    @property
    def kind(self) -> Kind:
        return kind_of(self.suffix)


def kind_of(suffix: str) -> Kind:
    """What a file of this suffix is, if it is an image or a sound."""
    return "sound" if suffix in SOUNDS else "image"


@dataclass(frozen=True)
class ImportedItem:
    """One example: its file, unless it is a text, what else its row holds, and further files by column."""

    columns: Mapping[str, Any]
    file: MediaFile | KeptFile | None = None
    others: Mapping[str, MediaFile] = field(default_factory=dict)  # conditioning images
    split: str | None = None  # "train" or "validation"


def media_file(content: bytes, name: str | None = None) -> MediaFile | None:
    """A file by its first bytes, or by the suffix of its name; None if it is neither an image nor a sound."""
    if content[:4] == b"RIFF":
        return MediaFile(content, ".webp" if content[8:12] == b"WEBP" else ".wav")
    if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"mif"):
        return MediaFile(content, ".heic")
    suffix = next((s for magic, s in MAGIC.items() if content.startswith(magic)), None)
    suffix = suffix or PurePosixPath(name or "").suffix.lower()
    return MediaFile(content, suffix) if suffix in IMAGES | SOUNDS else None


def image_column(name: str) -> str:
    """A column's name as one of conditioning images, which the reader of images knows by it."""
    name = re.sub(r"\W", "_", name)
    return name if re.fullmatch(r"image_.+|.+_image", name, re.IGNORECASE) else f"{name}_image"


def content_key(kind: Kind, files: Sequence[DataFile]) -> str:
    """What names the folder of these files, by their names and content."""
    digest = hashlib.sha256(f"{VERSION} {kind}".encode())
    for file in files:
        with open_file(file) as stream:
            digest.update(f" {file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:24]


def data_folder() -> Path:
    """Where data is written aside."""
    return preferences().data_folder


def write_aside(kind: Kind, entries: Iterable[ImportedItem], key: str | None = None) -> Path:
    """Write the entries, in their order, into a folder; returns it. Without a `key` it is named after what is written.

    Raises UserError without an entry, or if the folder cannot be written.
    """
    root = data_folder()
    with _temporary(root) as folder:
        target = folder / FOLDERS[kind]
        digest = hashlib.sha256(kind.encode())
        count = _write_texts(target, entries, digest) if kind == "text" else _write_media(target, entries, digest)
        if count == 0:
            raise UserError(f"No {kind} in the data: it has no usable rows. Give at least two {kind}s.")
        named = root / (key or digest.hexdigest()[:24])
        if not named.exists():
            put_in_place(folder, named)
    place = named / FOLDERS[kind]
    events.note(f"{counted(count, kind)} kept in {place}, which the run reads again", "written_aside")
    return place


def written_aside(kind: Kind, key: str) -> Path | None:
    """The folder of this key, if it was written before."""
    place = data_folder() / key / FOLDERS[kind]
    return place if place.is_dir() else None


@dataclass(frozen=True)
class WrittenData:
    """Data that was written aside: its name in `data_folder`, and the bytes that it takes."""

    name: str
    path: Path
    bytes: int


def written_data() -> list[WrittenData]:
    """All data that was written aside, by name."""
    root = data_folder()
    folders = sorted(p for p in root.glob("[0-9a-f]" * 24) if p.is_dir()) if root.is_dir() else []
    return [WrittenData(p.name, p, sum(f.stat().st_size for f in p.rglob("*") if f.is_file())) for p in folders]


def named_data(names: Sequence[str]) -> list[WrittenData]:
    """The data of these names. Raises UserError, listing what there is, for another name."""
    known = {d.name: d for d in written_data()} if names else {}
    for name in names:
        if name not in known:
            listed = ", ".join(f"{d.name} ({d.bytes:,} bytes)" for d in known.values()) or "none"
            raise UserError(f"No data {name!r} among the data that was kept: {listed}.")
    return [known[name] for name in dict.fromkeys(names)]


def remove_data(data: WrittenData) -> None:
    """Raises UserError if the data cannot be removed."""
    try:
        shutil.rmtree(data.path)
    except OSError as error:
        raise UserError(
            f"{error.filename or data.path} cannot be removed: {error.strerror or error}. Change its permissions, then "
            "repeat the command.",
            "cannot_remove",
            path=str(data.path),
        ) from error


@contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    """A folder beside the finished ones, which is removed unless it was renamed."""
    try:
        with folder_aside(root / secrets.token_hex(12)) as folder:
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            yield folder
    except OSError as error:
        raise UserError(
            f"The data cannot be written into {root}: {error.strerror or error}. {free_bytes(root):,} bytes are free. "
            "Make room there, or set AFRESH_DATA_FOLDER to another folder."
        ) from error


def _write_media(folder: Path, entries: Iterable[ImportedItem], digest: Any) -> int:
    lines = []
    for number, entry in enumerate(entries):
        if entry.file is None:
            continue
        part = f"{entry.split}/" if entry.split else ""
        row = dict(entry.columns)
        for column, file in {"": entry.file, **entry.others}.items():
            name = f"{part}{number:07d}{'-' + column if column else ''}{file.suffix}"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = _put(file, path)
            digest.update(f"{name} {len(content)} ".encode() + content)
            row[column or "file_name"] = name
        lines.append(_line(row))
    table = "".join(lines).encode()
    digest.update(table)
    if lines and folder.name != FOLDERS["score"]:  # whose readers take the names of all files for scores
        write_file(folder / "metadata.jsonl", table)
    return len(lines)


def _put(file: MediaFile | KeptFile, path: Path) -> bytes:
    """Write a file, or link to it; returns what names its content: itself, or the name of what is kept by its hash."""
    if isinstance(file, MediaFile):
        path.write_bytes(file.content)
        return file.content
    try:
        os.link(file.path, path)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file.path, path)
    return str(file.path).encode()


def _write_texts(folder: Path, entries: Iterable[ImportedItem], digest: Any) -> int:
    folder.mkdir(parents=True)
    files: dict[str, io.BufferedWriter] = {}
    count = 0
    try:
        for entry in entries:
            name = f"{entry.split or 'texts'}.jsonl"
            if name not in files:
                files[name] = (folder / name).open("wb")
            line = _line(entry.columns).encode()
            digest.update(f"{name} ".encode() + line)
            files[name].write(line)
            count += 1
    finally:
        for file in files.values():
            file.close()
    return count


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({k: jsonable(v) for k, v in row.items()}, ensure_ascii=True) + "\n"


def jsonable(value: Any) -> Any:
    """A value as JSON has it: numbers of NumPy and torch as Python's, what is not finite as null, bytes left out, and
    anything else as its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray) or type(value).__name__ in ("NAType", "NaTType"):  # missing, for pandas
        return None
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    plain = getattr(value, "tolist", None)  # arrays and tensors, and their numbers
    return jsonable(plain()) if callable(plain) else str(value)
