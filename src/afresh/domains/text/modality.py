"""Text: files of prose, or tables with a column of text, to a stream of tokens and back to .txt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from afresh.core import Corpus, Item, Omission, Refused, Sniff, UserError
from afresh.core.data import about
from afresh.core.plural import counted
from afresh.data.columns import LabelColumn
from afresh.data.files import (
    MB,
    NESTED_ARCHIVE,
    DataFile,
    FileError,
    ZipLimits,
    describes_data,
    matching_pattern,
    named,
    read_usable,
    read_zip,
    suffix_of,
    walk,
    zip_names,
)
from afresh.data.refusals import refusal_lines
from afresh.data.split import split_of_name
from afresh.data.tables import rows as tables
from afresh.data.tables.numbers import as_number
from afresh.data.tables.roles import TEXT_NAMES, columns_by_role, is_prose, lowered
from afresh.data.text import chat, extract
from afresh.data.text.documents import (
    DocumentEncoder,
    DocumentOptions,
    Room,
    fit_documents,
    limit_bytes,
    load_documents,
    not_blank,
    utf8_size,
)
from afresh.data.text.encodings import TextDecoder, Waiting
from afresh.data.text.kind import TEXT
from afresh.data.text.languages import PROGRAMS, exclusion_reason, language_of
from afresh.data.text.lists import SEPARATOR, is_list, may_be_list, separated
from afresh.domains.text.recognise import SURE, of_names, of_table

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
READ = PROSE | tables.SUFFIXES | extract.SUFFIXES
LOOKED_AT = 4  # tables of a folder


class TextOptions(DocumentOptions):
    """How text is read.

    Of a table, columns of instructions (prompt and completion, or messages) are read as conversations. Otherwise the
    column of text is recognised by its name, or is the only one that contains text.
    """

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


class TextModality:
    """.txt, .md, .rst, .html, .eml, .mbox, .docx, .odt, .epub, .pdf, .json, .jsonl, .csv, .tsv, .xlsx and .parquet,
    each also as .gz, and a .zip of them."""

    name = "text"
    kind = TEXT
    options = TextOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the names of the files, without those that only describe the data, and by the beginning of the
        first one, which may be of a kind that is not text although it can be read as such."""
        if not path.exists():
            return Sniff(0.0, f"{path} does not exist")
        seen = _seen(path)
        if seen is not None and not seen.score:
            return seen
        columns = seen.columns if seen is not None else 0
        if path.is_file() and path.suffix.lower() != ".zip":
            suffix = suffix_of(path.name)
            if suffix == ".json":
                return Sniff(0.6, "a .json file, which may contain texts")
            is_text = "read as" if suffix in READ else "not"
            return Sniff(SURE if suffix in READ else 0.0, f"{suffix or 'no suffix'} is {is_text} text", columns=columns)
        names = _names(path)
        ours = _texts(names)
        if ours and len(ours) == len(names) and all(suffix_of(n) == ".json" for n in names):
            return Sniff(0.6, f"{len(ours):,} .json files, which may contain texts")
        share = len(ours) / len(names) if names else 0.0
        return Sniff(share, f"{len(ours):,} of {len(names):,} files are text or tables", columns=columns)

    def read(self, path: Path, options: TextOptions) -> Corpus:
        """One Item per file, line, row, or part between lines `<|endoftext|>`.

        Files and folders named train and validation (val, test, ...) define the split. Raises UserError if there is no
        text, or if a column is missing or cannot be chosen. Of texts and conversations, only one kind is kept.
        """
        corpus = Corpus([])
        reading = _Reading(options, corpus, TextDecoder(options.encoding, together=True))
        room, size = Room(options), 0
        items: list[list[Item]] = []  # of each file
        waiting: list[tuple[int, str, str, bytes]] = []  # the place of a file, and what it is read from
        for name, suffix, raw in _contents(path, options, corpus, room):
            size += len(raw)
            room.check(size)  # of archives, the sizes are not known before
            try:
                items.append(_labelled(name, suffix, raw, reading))
            except Waiting:
                waiting.append((len(items), name, suffix, raw))
                items.append([])
        reading.decoder.decide()
        for place, name, suffix, raw in waiting:
            items[place] = _labelled(name, suffix, raw, reading)
        corpus.items = list(chain.from_iterable(items))
        corpus.notes += reading.decoder.notes()
        if options.document == "auto" and len(reading.documents) == 1:
            corpus.settled = {"document": next(iter(reading.documents))}
        if reading.pages:
            main = main_text_is_read(options)
            corpus.settled = {**corpus.settled, "pages": "main" if main else "visible"}
            corpus.notes.append(_pages_note(len(reading.pages), main))
        if not corpus.items:
            raise UserError(
                f"There is no usable text in {path} ({', '.join(sorted(READ))}, also .gz and .zip).",
                lines=refusal_lines(corpus.refused),
            )
        _keep_one_kind(corpus, options)
        _check_labels(corpus, options)
        corpus.items = _with_splits(corpus)
        corpus.items, notes = limit_bytes(corpus.items, options.max_bytes)
        corpus.notes += notes
        return corpus

    def fit(self, items: Sequence[Item], options: TextOptions) -> DocumentEncoder:
        tokenizer, conds, notes = fit_documents(items, options)
        records = any(i.turns for i in items)
        return DocumentEncoder(tokenizer, options.context, conds, not_blank, notes=notes, records=records)

    def load(self, folder: Path) -> DocumentEncoder:
        return load_documents(folder, lambda languages: not_blank)


MODALITY = TextModality()


def _names(path: Path) -> list[str]:
    """Names of the files in a folder or an archive, without those that describe the data, or of the file itself."""
    if path.is_file():
        names = zip_names(path) if path.suffix.lower() == ".zip" else [path.name]
    else:
        names = [f.name for f in walk(path, lambda n, folder: exclusion_reason(n, True) if folder else None)[0]]
    return [n for n in names if not describes_data(n)] or names


def _texts(names: Sequence[str]) -> list[str]:
    """The names of files that are text or tables. Beside programs, web pages are part of the program."""
    programs = any(language_of(n) in PROGRAMS for n in names)
    return [n for n in names if suffix_of(n) in READ and not (programs and language_of(n) == "html")]


def _seen(path: Path) -> Sniff | None:
    """What is seen of the files by their names, or in the beginnings of their tables: of a folder, of the first few, as
    there may be one of items beside a log. None if nothing is."""
    names = _names(path)
    if (unsupported := of_names(names)) is not None:
        return Sniff(0.0, f"{path.name} looks like {unsupported.kind}", unsupported)
    ours = set(_texts(names))
    if 2 * len(ours) < len(names) or (path.is_file() and path.name not in ours):
        return None
    files = [f for f in walk(path)[0] if f.name in ours] if path.is_dir() else [named(path)]
    seen = []
    for file in [f for f in files if suffix_of(f.name) in tables.SUFFIXES - {".json"}][:LOOKED_AT]:
        with suppress(FileError, OSError, EOFError):  # reading it reports what is wrong
            seen.append(of_table(tables.read_head(file)))
    return min(seen, key=lambda s: (s.score, -s.columns), default=None)


# --------------------------------------------------------------------------- reading


def _contents(path: Path, options: TextOptions, corpus: Corpus, room: Room) -> Iterator[tuple[str, str, bytes]]:
    """(name, suffix, content) of every file that may contain text. Other files are added to `corpus.refused`."""
    if path.is_file() and path.suffix.lower() == ".zip":
        members, refused = read_zip(path, READ, ZipLimits(member_bytes=options.max_file_mb * MB))
        for name, raw in members:
            if (pattern := matching_pattern(name, options.exclude)) is not None:
                refused.append(Refused(name, f"excluded by {pattern!r}"))
            else:
                yield name, suffix_of(name), raw
        corpus.refused += refused
        return

    def leave_out(name: str, folder: bool) -> str | None:
        pattern = matching_pattern(name, options.exclude)
        return None if pattern is None else f"excluded by {pattern!r}"

    files, refused = walk(path, leave_out)
    corpus.refused += refused
    about = {f.name for f in files if describes_data(f.name)}
    if len(about) == len(files):
        about = set()

    def refusal(file: DataFile) -> str | None:
        if file.name in about:
            return "describes the data; give the path of the file itself to train on it"
        if file.suffix == ".zip":
            return NESTED_ARCHIVE
        if path.is_file() or suffix_of(file.name) in READ:
            return None
        kind = of_names([file.name])
        return f"{kind.kind} cannot be learnt" if kind else f"unsupported text format ({file.suffix or 'no suffix'})"

    most = options.max_file_mb * MB
    room.check(sum(f.size for f in files if f.size <= most and refusal(f) is None))
    for file, raw in read_usable(files, refusal, options.max_file_mb, corpus.refused):
        yield file.name, suffix_of(file.name), raw


@dataclass(frozen=True)
class _Reading:
    """What reading a collection of files uses and adds to."""

    options: TextOptions
    corpus: Corpus
    decoder: TextDecoder
    pages: set[str] = field(default_factory=set)  # names of web pages
    documents: set[str] = field(default_factory=set)  # what a document of plain files was: "file", "line" or both


def _labelled(name: str, suffix: str, raw: bytes, reading: _Reading) -> list[Item]:
    """The items of a file, with the label of its folder and its side of the split; none, and an entry in `refused`, if
    it cannot be used. Raises Waiting if its encoding is not known yet."""
    try:
        items = list(_items(name, suffix, raw, reading))
    except FileError as error:
        reading.corpus.refused.append(Refused(name, str(error)))
        return []
    label = PurePosixPath(name).parts[0] if "/" in name and reading.options.folder_labels else None
    labels = {"label": label} if label else {}
    return [replace(i, labels={**i.labels, **labels}, split=split_of_name(name)) for i in items]


def _items(name: str, suffix: str, raw: bytes, reading: _Reading) -> Iterator[Item]:
    options = reading.options

    def decode(content: bytes) -> str:
        return reading.decoder.decode(name, content)

    if suffix in tables.SUFFIXES:
        yield from _rows(name, tables.read_table(suffix, raw, options.max_file_mb, decode), options, reading.corpus)
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
        raise FileError("nothing but white space")
    for where, part in parts:
        yield Item(part, where)


def main_text_is_read(options: TextOptions) -> bool:
    """Whether of web pages only the main text is read."""
    return options.pages == "main" or (options.pages == "auto" and find_spec("trafilatura") is not None)


def _pages_note(count: int, main: bool) -> str:
    pages = counted(count, "web page")
    if main:
        return f"of {pages} the main text is read, without navigation (`data.pages=visible` reads all that is visible)"
    return (
        f"of {pages} all that is visible is read, such as navigation, which is learnt too. Only the main text: "
        "`pip install 'afresh[collect]'` and `data.pages=main`"
    )


def _parts(name: str, text: str, reading: _Reading) -> list[tuple[str, str]]:
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


def _rows(name: str, table: tables.RowTable, options: TextOptions, corpus: Corpus) -> Iterator[Item]:
    """One Item per row. Raises UserError if a column is missing or cannot be chosen, and FileError without a text."""
    corpus.refused += [Refused(f"{name}, row {n}", reason) for n, reason in table.bad]
    corpus.notes += [about(name, note) for note in table.notes]
    if not table.rows:
        raise FileError("no usable row")
    form = None if options.text_column is not None else chat.chat_columns(table.columns)
    column = "" if form else text_column(name, table, options)
    conditions = (*([options.label_column] if options.label_column else []), *options.number_columns)
    for wanted in conditions:
        _require_column(name, table, wanted)
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
        corpus.notes.append(Omission(f"{name}: {c} is no number in {counted(n, 'row')}, learnt without it"))


def _content(row: tables.Row, column: str, form: chat.ChatColumns | None) -> tuple[str, chat.Turns] | str:
    """The text of a row and, if it is a conversation, its turns; or the reason why it cannot be used."""
    if form is not None:
        turns = chat.parse_turns(row, form)
        return turns if isinstance(turns, str) else (chat.display_text(turns), turns)
    problem = chat.text_problem(row.get(column), repr(column))
    return (row[column], ()) if problem is None else problem


def _require_column(name: str, table: tables.RowTable, column: str) -> None:
    if column not in table.columns:
        raise UserError(f"{name} has no column {column!r}. Its columns: {', '.join(table.columns)}.")


def text_column(name: str, table: tables.RowTable, options: TextOptions) -> str:
    if options.text_column is not None:
        _require_column(name, table, options.text_column)
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


def _keep_one_kind(corpus: Corpus, options: TextOptions) -> None:
    """Keep texts or conversations if there are both, with a note on what is left out; `settled` says which. Raises
    UserError if there is nothing of the kind that was asked for."""
    parts: dict[str, list[Item]] = {"texts": [], "conversations": []}
    for item in corpus.items:
        parts["conversations" if item.turns else "texts"].append(item)
    bytes_of = {kind: sum(utf8_size(i.value) for i in items) for kind, items in parts.items()}
    kept = max(parts, key=lambda kind: bytes_of[kind]) if options.learn == "auto" else options.learn
    other = "texts" if kept == "conversations" else "conversations"
    if not parts[kept]:
        raise UserError(
            f"There are no {kept} in the data, which are asked for by `data.learn={kept}`: it holds "
            f"{counted(len(parts[other]), other[:-1])}, such as {parts[other][0].source}. Leave the option out."
        )
    if not parts[other]:
        return
    why = "asked for" if options.learn != "auto" else "which have more bytes"
    corpus.notes.append(
        Omission(
            f"texts and conversations are not learnt together: {counted(len(parts[kept]), kept[:-1])} "
            f"({bytes_of[kept]:,} bytes) learnt, {why}; {counted(len(parts[other]), other[:-1])} ({bytes_of[other]:,} "
            f"bytes), such as {parts[other][0].source}, left out: `data.learn={other}` takes them instead"
        )
    )
    corpus.items, corpus.settled = parts[kept], {**corpus.settled, "learn": kept}


def _check_labels(corpus: Corpus, options: TextOptions) -> None:
    """Add a note on items without a label. Raises UserError if labels were requested and there are none."""
    labelled = sum("label" in i.labels for i in corpus.items)
    if labelled == 0 and (options.label_column or options.folder_labels):
        option = f"label_column={options.label_column}" if options.label_column else "folder_labels"
        raise UserError(f"`data.{option}` is set, but no document has such a label.")
    if 0 < labelled < len(corpus.items):
        missing = len(corpus.items) - labelled
        corpus.notes.append(Omission(f"{counted(missing, 'document')} without a label, trained without this condition"))


def _with_splits(corpus: Corpus) -> list[Item]:
    """Items with the split according to the names of files or folders, if both parts occur; otherwise without."""
    counts = Counter(i.split for i in corpus.items)
    if not counts["train"] or not counts["validation"]:
        return [replace(i, split=None) for i in corpus.items]
    corpus.notes.append(
        "files and folders named train and validation (or val, dev, test) are the data's own split: "
        f"{counts['train']:,} documents to train, {counts['validation']:,} held out, {counts[None]:,} others to train"
    )
    return corpus.items
