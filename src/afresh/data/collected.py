"""Data sets that `collect` made: the files of their folder, and how they are read to be learnt."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, open_file
from afresh.data.imported import ImportedItem, KeptFile, Kind, WrittenData, write_aside, written_aside, written_data
from afresh.data.tables.parquet import stream_parquet

MANIFEST, ITEMS, REJECTED, BLOBS = "dataset.json", "items.parquet", "rejected.parquet", "blobs"
LEAKAGE = "leakage.parquet"  # what the items have in common with other data
FORMAT = "afresh collected data 1"
MOST_MB = 4096  # of a group of rows, when decoded
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # BLAKE3 of the kind and the content
        ("kind", pa.string()),  # text, code, conversation, image, audio, music
        ("text", pa.string()),
        ("file", pa.string()),  # in the folder, of an item that is a file
        ("source", pa.string()),
        ("where", pa.string()),  # a path or an address
        ("time", pa.string()),
        ("licence", pa.string()),  # an expression of SPDX, or "unknown"
        ("licence_from", pa.string()),
        ("person", pa.string()),
        ("consent", pa.string()),
        ("group", pa.string()),
        ("title", pa.string()),
        ("label", pa.string()),
        ("caption", pa.string()),
        ("preferences", pa.string()),
        ("extra", pa.map_(pa.string(), pa.string())),
        ("language", pa.string()),
        ("cluster", pa.string()),  # the id of the first item that this one is nearly equal to, or its own
        ("split", pa.string()),  # train or validation
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("changed", pa.list_(pa.string())),  # the rules that changed it
        ("bytes", pa.int64()),
    ]
)
MODALITIES: dict[str, tuple[str, Kind]] = {  # of the kinds of items, and as what they are written aside
    "text": ("text", "text"),
    "conversation": ("text", "text"),
    "code": ("code", "text"),
    "image": ("image", "image"),
    "audio": ("audio", "sound"),
    "music": ("music", "score"),
}


def is_collected(path: Path) -> bool:
    """Whether a folder is a data set of `collect`."""
    return (path / MANIFEST).is_file() and (path / ITEMS).is_file()


def manifest(path: Path) -> dict[str, Any]:
    """What is known of a data set as a whole. Raises UserError if the folder is none, or of a newer version."""
    try:
        found = json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a data set that `afresh collect` made: {error}.", "not_a_data_set") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path} is a data set of another version of afresh. Update afresh.", "newer_data_set")
    return found


def rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The items of a data set as rows, a few at a time in memory. Another person may have made it: raises UserError if
    they cannot be read."""
    try:
        yield from stream_parquet(path / ITEMS, MOST_MB, lambda schema: columns or schema.names)
    except FileError as error:
        raise UserError(f"{path / ITEMS} cannot be read: {error}. Restore a copy of it.", "damaged") from None


def of_collected(path: Path, modality: str | None) -> Path | None:
    """A folder into which the items of a data set were written aside, those of the modality that was asked for or else
    of the one that has most bytes, with a note; None if the path is no data set. Raises UserError if it has no
    such items."""
    if not path.is_dir() or not is_collected(path):
        return None
    digest = manifest(path)["digest"]
    sizes: Counter[str] = Counter()
    present: set[str] = set()
    for row in rows(path, ["kind", "bytes"]):
        if row["kind"] in MODALITIES:
            present.add(row["kind"])
            sizes[MODALITIES[row["kind"]][0]] += row["bytes"]
    wanted = modality or (sizes.most_common(1)[0][0] if sizes else None)
    if wanted is None or wanted not in sizes:
        raise UserError(
            f"{path} has no items of the kind {wanted or 'that can be learnt'}. It has: {', '.join(sizes) or 'none'}.",
            "no_items",
        )
    if modality is None and len(sizes) > 1:
        others = ", ".join(f"{name} ({size:,} bytes)" for name, size in sizes.items() if name != wanted)
        events.note(
            f"{path} holds several kinds of items: {wanted} ({sizes[wanted]:,} bytes) is taken, which has most bytes, "
            f"and left out is {others}. `modality=NAME` takes another.",
            "several_modalities",
        )
    kinds = [k for k, (name, _) in MODALITIES.items() if name == wanted and k in present]
    kind = MODALITIES[kinds[0]][1]
    key = aside_key(digest, kinds[-1])
    return written_aside(kind, key) or write_aside(kind, _entries(path, kinds), key)


def learnt_kinds(modality: str, options: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of items that a modality learns by its options, which say whether texts or conversations if there are
    both."""
    left = {"texts": "conversation", "conversations": "text"}.get(str(options.get("learn")))
    return frozenset(k for k, (name, _) in MODALITIES.items() if name == modality and k != left)


def aside_key(digest: str, kind: str) -> str:
    """What names the folder into which the items of a data set were written aside."""
    return f"{digest[:18]}{kind.encode().hex()[:6]}"


def kept_aside(digest: str) -> list[WrittenData]:
    """The folders into which items of a data set of this digest were written aside."""
    keys = {aside_key(digest, kind) for kind in MODALITIES} if digest else set()
    return [d for d in written_data() if d.name in keys]


def content_file(folder: Path, name: str) -> DataFile:
    """The content of an item of a data set, which may be somebody else's. Raises FileError if `name` is not that of a
    regular file among its contents."""
    file = DataFile(folder / name, name, 0, folder / BLOBS)
    with open_file(file) as stream:
        return replace(file, size=os.fstat(stream.fileno()).st_size)


def _entries(path: Path, kinds: list[str]) -> Iterator[ImportedItem]:
    unusable: list[str] = []
    for row in rows(path):
        if row["kind"] not in kinds:
            continue
        split = row["split"] or None
        about = {k: row[k] for k in ("label", "caption") if row[k]}
        if row["file"]:
            try:
                file = content_file(path, row["file"])
            except FileError as error:
                unusable.append(f"{row['file']!r}: {error}")
                continue
            yield ImportedItem(about, KeptFile(file.path), split=split)
        elif row["kind"] == "conversation":
            yield ImportedItem({"messages": json.loads(row["text"])}, split=split, within="conversations")
        else:
            yield ImportedItem({"text": row["text"], **{k: v for k, v in about.items() if k == "label"}}, split=split)
    if unusable:
        message = f"{counted(len(unusable), 'item')} of {path} left out, as {unusable[0]}"
        events.warning(message, "files_left_out")


SOURCE = of_collected
