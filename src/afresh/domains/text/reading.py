"""Files of text, and tables with columns of text, to items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, field_validator

from afresh.core import Corpus, Item, Omission, Refused, UserError
from afresh.core.data import about
from afresh.core.plural import counted
from afresh.data.collected import tables_of_texts
from afresh.data.columns import LabelColumn
from afresh.data.files import (
    MB,
    NESTED_ARCHIVE,
    DataFile,
    FileError,
    ZipLimits,
    describes_data,
    matching_pattern,
    read_usable,
    read_zip,
    suffix_of,
    walk,
)
from afresh.data.split import split_of_name
from afresh.data.tables import SUFFIXES
from afresh.data.tables import rows as tables
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import TEXT_NAMES, check_column, columns_by_role, is_prose, lowered
from afresh.data.text import chat, extract
from afresh.data.text.documents import DocumentOptions
from afresh.data.text.encodings import TextDecoder
from afresh.data.text.lists import SEPARATOR, is_list, may_be_list, separated
from afresh.domains.text.recognise import of_names

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
BLANK, NO_ROW = "nothing but white space", "no usable row"  # reasons for which a file has no items
READ = PROSE | SUFFIXES | extract.SUFFIXES


class TextOptions(DocumentOptions):
    """How text is read.

    Of a table, columns of instructions (prompt and completion, or messages) are read as conversations. Otherwise the
    column of text is recognised by its name, or is the only one that contains text.
    """

    tokenizer: Literal["auto", "chars", "bytes", "bpe"] | Path = Field(  # type: ignore[assignment]
        "auto",
        description="characters, bytes or byte-pair encoding; auto: chosen by the amount of text; or the path of a "
        "tokenizer.json, of a folder with one, or of a run, as of what files of tokens belong to",
    )
    text_column: str | None = Field(
        None, description="column of a table to read as plain text; None: conversations, or chosen by name"
    )
    label_column: LabelColumn = None
    number_columns: tuple[str, ...] = Field(
        (), description="columns of a table whose numbers are learnt as conditions, such as difficulty"
    )
    folder_labels: bool = Field(False, description='the outermost folder becomes the label "label"')
    document: Literal["auto", "file", "line"] = Field(
        "auto", description="what one document is in plain text; auto: a line of files that are lists, otherwise a file"
    )
    pages: Literal["auto", "main", "visible"] = Field(
        "auto",
        description="what is read of web pages: the main text without navigation, found by the extra collect, or all "
        "that is visible; auto: the main text if the extra is installed",
    )
    learn: Literal["auto", "texts", "conversations"] = Field(
        "auto",
        description="which of both is learnt where the data holds both, which are not learnt together; auto: what has "
        "more bytes",
    )
    stream: bool | None = Field(
        None,
        description="whether texts are learnt from the disk, in parts, instead of from memory; None: if they need more "
        "memory than is free",
    )

    @field_validator("tokenizer")
    @classmethod
    def _is_a_kind_or_exists(cls, value: str | Path) -> str | Path:
        if isinstance(value, Path):
            if len(value.parts) == 1 and not value.exists():
                raise ValueError(f"{value} is neither auto, chars, bytes or bpe nor the path of a tokenizer")
            return value.expanduser().resolve()
        return value


@dataclass(frozen=True)
class TextFiles:
    """The files of a path that may contain text; None for an archive of them, whose members are read one after the
    other."""

    path: Path
    files: tuple[DataFile, ...] | None

    @property
    def size(self) -> int:
        """In bytes; 0 for an archive, whose sizes are not known before."""
        return sum(f.size for f in self.files or ())


def find_texts(path: Path, options: TextOptions, refused: list[Refused]) -> TextFiles:
    """Other files are added to `refused`."""
    if path.is_file() and path.suffix.lower() == ".zip":
        return TextFiles(path, None)

    def leave_out(name: str, folder: bool) -> str | None:
        pattern = matching_pattern(name, options.exclude)
        return None if pattern is None else f"excluded by {pattern!r}"

    files, others = walk(path, leave_out)
    refused += others
    describing = {f.name for f in files if describes_data(f.name)}
    if len(describing) == len(files):
        describing = set()

    def refusal(file: DataFile) -> str | None:
        if file.name in describing:
            return "describes the data; give the path of the file itself to train on it"
        if file.suffix == ".zip":
            return NESTED_ARCHIVE
        if path.is_file() or suffix_of(file.name) in READ:
            return None
        kind = of_names([file.name])
        return (
            f"{kind.kind} cannot be learnt. {kind.advice}"
            if kind
            else f"unsupported text format ({file.suffix or 'no suffix'})"
        )

    reasons = {file.name: refusal(file) for file in files}
    refused += [Refused(name, reason) for name, reason in reasons.items() if reason is not None]
    return TextFiles(path, tuple(f for f in files if reasons[f.name] is None))


def contents(found: TextFiles, options: TextOptions, refused: list[Refused]) -> Iterator[tuple[str, str, bytes]]:
    """(name, suffix, content) of every file. Those that cannot be read are added to `refused`."""
    if found.files is not None:
        for file, raw in read_usable(found.files, lambda file: None, options.max_file_mb, refused):
            yield file.name, suffix_of(file.name), raw
        return
    members, others = read_zip(found.path, READ, ZipLimits(member_bytes=options.max_file_mb * MB))
    for name, raw in members:
        if (pattern := matching_pattern(name, options.exclude)) is not None:
            others.append(Refused(name, f"excluded by {pattern!r}"))
        else:
            yield name, suffix_of(name), raw
    refused += others


@dataclass(frozen=True)
class Reading:
    """What reading a collection of files uses and adds to."""

    options: TextOptions
    corpus: Corpus
    decoder: TextDecoder
    pages: set[str] = field(default_factory=set)  # names of web pages
    documents: set[str] = field(default_factory=set)  # what a document of plain files was: "file", "line" or both


def labelled_items(name: str, suffix: str, raw: bytes, reading: Reading) -> list[Item]:
    """The items of a file, with the label of its folder and its side of the split; none, and an entry in `refused`, if
    it cannot be used. Raises Waiting if its encoding is not known yet."""
    try:
        items = list(items_of_file(name, suffix, raw, reading))
    except FileError as error:
        reading.corpus.refused.append(Refused(name, str(error)))
        return []
    label = PurePosixPath(name).parts[0] if "/" in name and reading.options.folder_labels else None
    labels = {"label": label} if label else {}
    return [replace(i, labels={**i.labels, **labels}, split=split_of_name(name)) for i in items]


def items_of_file(name: str, suffix: str, raw: bytes, reading: Reading) -> Iterator[Item]:
    """The items of the content of a file, or of a stretch of it. Raises FileError and Waiting."""
    options = reading.options

    def decode(content: bytes) -> str:
        return reading.decoder.decode(name, content)

    if suffix in SUFFIXES:
        yield from items_of_rows(
            name, tables.read_table(suffix, raw, options.max_file_mb, decode), options, reading.corpus
        )
        return
    if suffix in extract.SUFFIXES:
        parts = []
        if suffix in extract.PAGES:
            reading.pages.add(name)
        for read in extract.documents(suffix, raw, decode, options.max_file_mb, main_text_is_read(options)):
            if isinstance(read, tuple):
                reading.corpus.refused.append(Refused(f"{name}, message {read[0]}", read[1]))
            else:
                parts.append((f"{name}, message {read.number}" if read.number else name, read.text))
    else:
        parts = _parts(name, decode(raw), reading)
    if not any(part.strip() for _, part in parts):
        raise FileError(BLANK)
    for where, part in parts:
        yield Item(part, where)


def items_of_data_set(
    file: Path, options: TextOptions, corpus: Corpus, groups: Sequence[int] | None = None
) -> Iterator[Item]:
    """The texts and conversations of a data set that `collect` made, or of groups of its rows, each with its side of
    the split. Raises UserError like `items_of_rows`, and if they cannot be read."""
    for split, table in tables_of_texts(file, groups):
        for item in items_of_rows(file.name, table, options, corpus):
            yield replace(item, split=split)


def main_text_is_read(options: TextOptions) -> bool:
    """Whether of web pages only the main text is read."""
    return options.pages == "main" or (options.pages == "auto" and find_spec("trafilatura") is not None)


def pages_note(count: int, main: bool) -> str:
    pages = counted(count, "web page")
    if main:
        return f"of {pages} the main text is read, without navigation (`data.pages=visible` reads all that is visible)"
    return (
        f"of {pages} all that is visible is read, such as navigation, which is learnt too. Only the main text: "
        "`pip install 'afresh[collect]'` and `data.pages=main`"
    )


def _parts(name: str, text: str, reading: Reading) -> list[tuple[str, str]]:
    """(where, text) of the documents of a plain file: the file, its lines, or what is between lines SEPARATOR."""
    document, note = reading.options.document, reading.corpus.notes.append
    documents = separated(text) if document != "line" else [text]
    if len(documents) > 1:
        parts = [(f"{name}, document {n}", d) for n, d in enumerate(documents, 1) if d.strip()]
        note(f"{name}: {counted(len(parts), 'document')} between lines {SEPARATOR}")
        return parts
    by_line = document == "line" or (document == "auto" and is_list(text))
    reading.documents.add("line" if by_line else "file")
    if not by_line:
        if document == "auto" and may_be_list(text):
            note(
                f"{name} has {text.count(chr(10)):,} short lines and no blank lines: if each is a text of its own, set "
                "`data.document=line`"
            )
        return [(name, text)]
    parts = [(f"{name}, line {n}", line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if document == "auto":
        note(
            f"{name} is a list: each of its {len(parts):,} lines is a text of its own; if it is one text, set "
            "`data.document=file`"
        )
    return parts


def items_of_rows(name: str, table: tables.RowTable, options: TextOptions, corpus: Corpus) -> Iterator[Item]:
    """One Item per row. Raises UserError if a column is missing or cannot be chosen, and FileError without a text."""
    corpus.refused += [Refused(f"{name}, row {n}", reason) for n, reason in table.bad]
    corpus.notes += [about(name, note) for note in table.notes]
    if not table.rows:
        raise FileError(NO_ROW)
    form = None if options.text_column is not None else chat.chat_columns(table.columns)
    column = "" if form else text_column(name, table, options)
    conditions = (*([options.label_column] if options.label_column else []), *options.number_columns)
    for wanted in conditions:
        check_column(name, table.columns, wanted)
    used = form.columns if form else (column,)
    unused = [c for c in (*table.columns, *table.skipped) if c not in (*used, *conditions)]
    what = f"conversations from {_list(used)}, whose answers are learnt" if form else f"the text is column {column!r}"
    corpus.notes.append(Omission(f"{name}: {what}; not used: {_list(unused)}") if unused else f"{name}: {what}")
    without = Counter[str]()  # rows without a number, by column
    for number, row in table.rows:
        where, content = f"{name}, row {number}", _content(row, column, form)
        if isinstance(content, str):
            corpus.refused.append(Refused(where, content))
            continue
        label = row.get(options.label_column) if options.label_column else None
        if label is not None and (isinstance(label, dict | list) or not str(label).isprintable()):
            corpus.notes.append(
                Omission(f"{where}: {options.label_column} is not a plain value, so the row has no label")
            )
            label = None
        labels = {} if label in (None, "") else {"label": str(label)}
        numbers = {c: value for c in options.number_columns if (value := as_number(row.get(c))) is not None}
        without.update(c for c in options.number_columns if c not in numbers)
        yield Item(content[0], where, labels, numbers, turns=content[1])
    for c, n in without.items():
        corpus.notes.append(Omission(f"{name}: {c} is not a number in {counted(n, 'row')}, learnt without it"))


def _content(row: tables.Row, column: str, form: chat.ChatColumns | None) -> tuple[str, chat.Turns] | str:
    """The text of a row and, if it is a conversation, its turns; or the reason why it cannot be used."""
    if form is not None:
        turns = chat.parse_turns(row, form)
        return turns if isinstance(turns, str) else (chat.display_text(turns), turns)
    problem = chat.text_problem(row.get(column), repr(column))
    return (row[column], ()) if problem is None else problem


def text_column(name: str, table: tables.RowTable, options: TextOptions) -> str:
    if options.text_column is not None:
        check_column(name, table.columns, options.text_column)
        return options.text_column
    candidates = [c for c in table.texts if c not in (options.label_column, *options.number_columns)]
    if by_name := columns_by_role(candidates, {"text": TEXT_NAMES}, plain=lowered):
        return by_name["text"]
    prose = [c for c in candidates if is_prose(c, table.texts_of(c))]
    for only in (candidates, prose):
        if len(only) == 1:
            return only[0]
    if not candidates:
        raise FileError(f"no column contains text; its columns are {_list(table.columns)}")
    raise UserError(
        f"{name} has several columns that could be the text: {_list(candidates)}. Choose one: `data.text_column`."
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
