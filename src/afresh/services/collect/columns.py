"""Rows with columns, as tables, data bases and data sets have them, to what a source finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from afresh.core import UserError
from afresh.data.columns import CAPTIONS
from afresh.data.files import FileError
from afresh.data.imported import ImportedItem, MediaFile, media_file
from afresh.data.limits import parsing
from afresh.data.tables.roles import TEXT_NAMES, check_given, columns_by_role, lowered
from afresh.data.text.chat import ChatColumns, chat_columns, parse_turns, text_problem
from afresh.services.collect.licences import normalised_or_unknown
from afresh.services.collect.record import About, Found, Rejection
from afresh.services.collect.sources import Options

# What a column is if it is not named by an option, by its name in lower case; the first that there is counts.
GUESSED: Mapping[str, Sequence[str]] = {
    "file": ("image", "img", "audio", "sound", "file_name", "file", "path"),
    "text": TEXT_NAMES,
    "caption": CAPTIONS,
    "label": ("label", "class", "category", "topic"),
    "title": ("title", "headline", "subject"),
    "person": ("author", "user", "username", "person", "speaker", "sender", "writer"),
    "time": ("time", "date", "timestamp", "created_at", "published", "created"),
    "licence": ("license", "licence", "license_expression"),
    "consent": ("consent",),
    "group": ("group", "repository", "repo", "speaker_id", "document_id"),
}


class ColumnOptions(Options):
    """Which columns are what; those that are not named are guessed and said."""

    text: str = Field("", description="column of the text")
    label: str = Field("", description="column of the label")
    caption: str = Field("", description="column of the caption of an image or a sound")
    file: str = Field("", description="column of the image or the sound, or of its path beside the table")
    title: str = Field("", description="column of the title")
    person: str = Field("", description="column of whose it is")
    consent: str = Field("", description="column of what that person agreed to")
    time: str = Field("", description="column of when it was made")
    licence: str = Field("", description="column of the licence")
    group: str = Field("", description="column of what stays on one side of the split")


@dataclass(frozen=True)
class TableColumns:
    """The columns of rows by what they are (a name of `GUESSED`), or of a conversation."""

    of: Mapping[str, str] = field(default_factory=dict)
    chat: ChatColumns | None = None

    def words(self) -> str:
        """What was chosen, for a note."""
        parts = [f"{what} is {column!r}" for what, column in self.of.items()]
        if self.chat is not None:
            parts.insert(0, f"conversations are from {', '.join(map(repr, self.chat.columns))}")
        return "; ".join(parts)


def choose(names: Sequence[str], texts: Sequence[str], media: Sequence[str], options: ColumnOptions) -> TableColumns:
    """Which columns are what. `texts` hold texts, `media` images or sounds.

    Raises UserError, listing the columns, if one that an option names is missing, or if there is neither a text nor a
    file.
    """
    named = {k: v for k in ColumnOptions.model_fields if k in GUESSED and (v := getattr(options, k))}
    check_given(names, named, prefix="")
    of = dict(named)
    chat = None if "text" in named or media else chat_columns(names)
    if chat is None and "file" not in of:
        free = [n for n in media if n not in of.values()]
        if likely := [n for n in free if lowered(n) in GUESSED["file"]] or free:
            of["file"] = likely[0]
        else:
            of = columns_by_role(texts, {"file": GUESSED["file"]}, of, plain=lowered)
    unasked = ("text", "caption") if chat else ("text",) if "file" in of else ("caption",)
    roles = {what: guesses for what, guesses in GUESSED.items() if what not in ("file", *unasked)}
    of = columns_by_role(names, roles, of, plain=lowered)
    left = [t for t in texts if t not in of.values()]
    if not chat and "text" not in of and "file" not in of and len(left) == 1:
        of["text"] = left[0]
    if not chat and "text" not in of and "file" not in of:
        raise UserError(
            "Which column holds the text is not clear. Give the source the option text=COLUMN, or of images or sounds "
            f"file=COLUMN. The columns are: {', '.join(names) or 'none'}.",
            "unknown_column",
        )
    return TableColumns(of, chat)


FILE = "\0file"  # the column of the file of an example, which has no name of its own
Read = Callable[[str], MediaFile]  # an image or a sound by its path; raises FileError


def no_paths(name: str) -> MediaFile:
    """Of rows that lie nowhere: a path would name a file of this machine."""
    raise FileError(
        f"it has the path {name!r} of a file, but not its content. Give the content, or a table beside its files"
    )


def found_in(
    source: str,
    where: str,
    row: Mapping[str, Any],
    columns: TableColumns,
    *,
    split: str | None = None,
    read: Read = no_paths,
    extra: Mapping[str, str] | None = None,
) -> Found | Rejection:
    """What a row holds, or why it holds nothing."""
    person = ""
    try:
        with parsing("row"):
            told = {what: _word(row.get(c)) for what, c in columns.of.items() if what not in ("text", "file")}
            licence, person = told.pop("licence", ""), told.get("person", "")
            stated = f"the column {columns.of['licence']}" if licence else ""
            known = {"licence": normalised_or_unknown(licence), "licence_from": stated, "split": split or ""}
            return _found(where, row, columns, About(**known, extra=dict(extra or {}), **told), read)
    except FileError as error:
        return Rejection(source, where, "find", "rows", str(error), person=person)


def _found(where: str, row: Mapping[str, Any], columns: TableColumns, about: About, read: Read) -> Found:
    if columns.chat is not None:
        turns = parse_turns(row, columns.chat)
        if isinstance(turns, str):
            raise FileError(turns)
        return Found(where, messages_json(turns), about=about, kind="conversation")
    if "file" in columns.of:
        file = _file(row.get(columns.of["file"]), read)
        return Found(where, file.content, f"row{file.suffix}", about=about)
    column = columns.of["text"]
    text = row.get(column)
    if (problem := text_problem(text, repr(column))) is not None:
        raise FileError(problem)
    return Found(where, str(text), about=about, kind="text")


def messages_json(turns: Sequence[tuple[str, str]]) -> str:
    """A conversation as the JSON of its messages, [{"role", "content"}]."""
    return json.dumps([{"role": role, "content": text} for role, text in turns], ensure_ascii=False)


def found_in_entry(source: str, where: str, entry: ImportedItem, options: ColumnOptions) -> Found | Rejection:
    """What an example holds, whose columns are its own. Raises UserError if it is not clear which column is what."""
    row: dict[str, Any] = {str(k): v for k, v in entry.columns.items()}
    texts = [k for k, v in row.items() if isinstance(v, str)]
    media = [] if entry.file is None else [FILE]
    if entry.file is not None:
        row = {FILE: entry.file, **row}
    columns = choose(list(row), texts, media, options)
    return found_in(source, where, row, columns, split=entry.split)


def _word(value: Any) -> str:
    """A value as text; empty if it is missing."""
    if value is None or value != value:  # a number that is none
        return ""
    moment = getattr(value, "isoformat", None)
    text = str(moment()) if callable(moment) else str(value)
    return text.encode("utf-8", "replace").decode().strip()


def _file(value: Any, read: Read) -> MediaFile:
    name = value.get("path") if isinstance(value, Mapping) else None
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(content, MediaFile):
        return content
    if isinstance(content, bytes) and content:
        file = media_file(content, name if isinstance(name, str) else None)
        if file is None:
            raise FileError("its file is neither an image nor a sound of a known format")
        return file
    path = content if isinstance(content, str) else name
    if not isinstance(path, str) or not path.strip():
        raise FileError("it has no file")
    return read(path)
