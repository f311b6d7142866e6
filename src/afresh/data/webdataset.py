"""WebDataset: .tar archives in which files of one name are one example: 0001.jpg, 0001.txt, 0001.cls, 0001.json.

Nothing is unpacked under the names of an archive: members are read in their order and written aside under numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from afresh.core import UserError, events
from afresh.data.files import MB, DataFile, FileError, is_hidden, open_file, printable, walk
from afresh.data.imported import (
    IMAGES,
    KINDS,
    SOUNDS,
    ImportedItem,
    Kind,
    content_key,
    image_column,
    media_file,
    write_aside,
    written_aside,
)
from afresh.data.limits import Limits, Meter, parsing
from afresh.data.split import split_of_name
from afresh.data.tar import SECONDS, members

TEXTS = {"txt": "text", "text": "text", "caption": "text", "cls": "label"}  # the columns of members by their endings
MAX_MEMBER = 512 * MB
SHOWN = 12  # endings in a message
MOST_MEMBERS = 10_000_000  # of one archive


def of_archives(path: Path, modality: str | None) -> Path | None:
    """A folder into which the .tar archives of images or sounds of a path were written aside; None if there are none.

    Raises UserError if no archive can be read, or if they hold both images and sounds and `modality` does not say
    which.
    """
    files = _archives(path)
    if not files:
        return None
    kind = _kind(path, files, modality)
    key = content_key(kind, files)
    return written_aside(kind, key) or write_aside(kind, _entries(files, kind), key)


def _archives(path: Path) -> list[DataFile]:
    if path.is_file():
        return walk(path)[0] if path.suffix.lower() == ".tar" else []
    if not path.is_dir():
        return []
    files = walk(path)[0]
    return files if files and all(f.suffix == ".tar" for f in files) else []


def _kind(path: Path, files: list[DataFile], modality: str | None) -> Kind:
    suffixes: set[str] = set()
    damage = ""
    for file in files:
        try:
            for example in examples(file, False):
                suffixes |= {f".{name.rpartition('.')[2]}" for name in example}
        except FileError as error:
            damage = str(error)
    if damage and not suffixes:
        raise UserError(f"{path} is not a .tar archive that can be read: {damage}. Repair or remove it.")
    found: set[Kind] = set()
    if suffixes & IMAGES:
        found.add("image")
    if suffixes & SOUNDS:
        found.add("sound")
    wanted = KINDS.get(modality or "")
    if wanted in found:
        return wanted
    if not found or modality is not None:
        raise UserError(
            f"{path} has members of {', '.join(sorted(suffixes)[:SHOWN]) or 'no kind'}. Of a .tar, images or sounds "
            "are read, each with a .txt, .cls or .json of the same name. Unpack it to read it otherwise."
        )
    if len(found) > 1:
        raise UserError(f"{path} has images and sounds. Choose: `modality=image` or `modality=audio`.")
    return found.pop()


def examples(file: DataFile, content: bool) -> Iterator[dict[str, bytes]]:
    """The members of each example by their endings (jpg, txt, seg.png), with their content or without.

    Raises FileError if the archive is damaged or exceeds a limit; the examples before are good.
    """
    current, example = "", dict[str, bytes]()
    meter = Meter(Limits(items=MOST_MEMBERS, seconds=SECONDS))
    with parsing("archive"), open_file(file) as stream:
        for archive, member in members(stream, "r:", file.size, meter):
            folder, _, base = printable(member.name).rpartition("/")
            stem, _, ending = base.partition(".")
            if not member.isreg() or not ending or is_hidden(base):
                continue
            if member.size > MAX_MEMBER or member.issparse():  # a sparse member may claim any size
                raise FileError(f"{printable(member.name)} has {member.size:,} bytes, or holes")
            name = f"{folder}/{stem}"
            if name != current and example:
                with meter.paused():
                    yield example
                example = {}
            inside = archive.extractfile(member) if content else None
            current, example[ending.lower()] = name, b"" if inside is None else inside.read()
    if example:
        yield example


def _entries(files: list[DataFile], kind: Kind) -> Iterator[ImportedItem]:
    splits = {f.name: split_of_name(f.name) for f in files}
    held_out = "validation" in splits.values()
    left_out = 0
    for file in files:
        try:
            for example in examples(file, True):
                found = entry(example, kind, (splits[file.name] or "train") if held_out else None)
                if found.file is None:
                    left_out += 1
                    continue
                yield found
        except FileError as error:
            events.warning(f"{file.name}: {error}; what comes after that is left out", "files_left_out")
    if left_out:
        events.warning(f"{left_out:,} examples have no {kind} of a known format: they are left out", "rows_left_out")


def entry(example: Mapping[str, bytes], kind: Kind | None = None, split: str | None = None) -> ImportedItem:
    """What the members of an example are, with its image or sound of this kind or, with None, of either."""
    media = {k: m for k, v in example.items() if (m := media_file(v, f"x.{k}")) is not None and kind in (None, m.kind)}
    main = min(media, key=lambda k: k.count("."), default=None)
    if main is None:
        return ImportedItem(_columns(example), split=split)
    others = {
        image_column(k.partition(".")[0]): m for k, m in media.items() if k != main and media[main].kind == "image"
    }
    return ImportedItem(_columns(example), media[main], others, split)


def _columns(example: Mapping[str, bytes]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if "json" in example:
        try:
            found = json.loads(example["json"])
        except (ValueError, RecursionError):
            found = None
        columns = dict(found) if isinstance(found, dict) else {}
        columns.pop("file_name", None)
    for ending, column in TEXTS.items():
        if ending in example:
            columns[column] = example[ending].decode("utf-8-sig", "replace").strip()
    return columns


SOURCE = of_archives
