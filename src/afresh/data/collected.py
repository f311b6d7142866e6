"""Data sets that `collect` made: the files of their folder, and how they are read to be learnt."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, open_file
from afresh.data.imported import (
    FOLDERS,
    ImportedItem,
    KeptFile,
    Kind,
    WrittenData,
    data_folder,
    write_aside,
    written_aside,
    written_data,
)
from afresh.data.storage.files import replace_file, write_file

if TYPE_CHECKING:
    from afresh.data.tables.delimited import Row
    from afresh.data.tables.rows import RowTable

MANIFEST, ITEMS, REJECTED, BLOBS = "dataset.json", "items.parquet", "rejected.parquet", "blobs"
LEAKAGE = "leakage.parquet"  # what the items have in common with other data
FORMAT = "afresh collected data 1"
MOST_MB = 4096  # of a group of rows, when decoded
DIGEST = "digest"  # the file in a folder of what was made of a data set, by which it is found
LEARNT = ["kind", "text", "label", "split"]  # the columns of texts that are read to be learnt
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


def rows(path: Path, columns: list[str] | None = None, groups: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """The items of a data set as rows, a few at a time in memory. `groups`: the numbers of the groups of rows that are
    read; None for all. Another person may have made it: raises UserError if they cannot be read."""
    from afresh.data.tables.parquet import stream_parquet

    with _reading(path):
        yield from stream_parquet(path / ITEMS, MOST_MB, lambda schema: columns or schema.names, groups)


def data_set_size(file: Path) -> int:
    """About how many bytes the table of a data set has when unpacked. Raises UserError if it cannot be read."""
    from afresh.data.tables.parquet import group_sizes

    with _reading(file.parent):
        return sum(group_sizes(file))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileError as error:
        raise UserError(f"{path / ITEMS} cannot be read: {error}. Restore a copy of it.", "damaged") from None


def is_items(path: Path) -> bool:
    """Whether a file is the table of the items of a data set."""
    return path.name == ITEMS and is_collected(path.parent)


def tables_of_texts(file: Path, groups: Sequence[int] | None = None) -> Iterator[tuple[str | None, RowTable]]:
    """The texts and conversations in the table of a data set, in tables of one kind and one side of the split, with
    that side. `groups`: the numbers of the groups of rows that are read; None for all.

    Raises UserError if they cannot be read.
    """
    from afresh.data.tables.rows import RowTable

    parts: dict[tuple[str, str | None], list[tuple[int, Row]]] = {}
    for number, row in enumerate(rows(file.parent, LEARNT, groups), 1):
        content: Row
        if row["kind"] == "conversation":
            content = {"messages": row["text"]}
        elif row["kind"] == "text":
            content = {"text": row["text"]} | ({"label": row["label"]} if row["label"] else {})
        else:
            continue
        parts.setdefault((row["kind"], row["split"] or None), []).append((number, content))
    for (kind, split), numbered in parts.items():
        columns = ("messages",) if kind == "conversation" else ("text", "label")
        yield split, RowTable(columns, columns, numbered)


def of_collected(path: Path, modality: str | None) -> Path | None:
    """What of a data set is read to be learnt, of the modality that was asked for or else of the one that has most
    bytes, with a note: of texts its table as it is, of other items a folder into which they were written aside; None if
    the path is not a data set. Raises UserError if it has no such items."""
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
    if wanted == "text":
        return path / ITEMS
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


def mark_kept(folder: Path, path: Path) -> None:
    """Mark a folder of what was made of a data set, such as its tokens, for `kept_aside`."""
    replace_file(folder / DIGEST, str(manifest(path)["digest"]).encode())


def mark_made_from(folder: Path, file: DataFile) -> None:
    """Mark a folder of what was made of the files of another one, for `made_of` and `kept_aside`."""
    write_file(folder / DIGEST, str((file.root or file.path).resolve()).encode("utf-8", "surrogateescape"))


def made_of(path: Path) -> list[WrittenData]:
    """The folders of what was made of the files of a folder."""
    return [d for d in written_data() if _mark_of(d.path) == str(path.resolve())]


def kept_aside(digest: str) -> list[WrittenData]:
    """The folders into which items of a data set of this digest were written aside, as they are or as what was made of
    them."""
    keys = {aside_key(digest, kind) for kind in MODALITIES} if digest else set()
    places = {str((data_folder() / key / kind).resolve()) for key in keys for kind in FOLDERS.values()}
    return [d for d in written_data() if d.name in keys or _mark_of(d.path) in {digest, *places}]


def _mark_of(folder: Path) -> str | None:
    file = folder / DIGEST
    return file.read_bytes().decode("utf-8", "surrogateescape") if file.is_file() else None


def content_file(folder: Path, name: str) -> DataFile:
    """The content of an item of a data set, which may be someone else's. Raises FileError if `name` is not that of a
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
        else:
            yield ImportedItem({"text": row["text"], **{k: v for k, v in about.items() if k == "label"}}, split=split)
    if unusable:
        message = f"{counted(len(unusable), 'item')} of {path} left out, as {unusable[0]}"
        events.warning(message, "files_left_out")


SOURCE = of_collected
