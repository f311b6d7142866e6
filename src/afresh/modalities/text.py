"""Text: files of prose or tables with a column of it, to a stream of tokens and back to .txt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from afresh.core import Corpus, Item, Refused, Sniff, UserError
from afresh.data.files import (
    MB,
    FileError,
    ZipLimits,
    decode_text,
    matching_pattern,
    read_bytes,
    read_zip,
    walk,
    zip_names,
)
from afresh.data.text import chat, tables
from afresh.data.text.documents import (
    DocumentEncoder,
    DocumentOptions,
    fit_documents,
    limit_bytes,
    load_documents,
    not_blank,
)
from afresh.data.text.kind import TEXT
from afresh.data.text.languages import exclusion_reason

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})
READ = PROSE | tables.SUFFIXES
TEXT_NAMES = ("text", "content", "body", "document", "article", "story", "sentence", "review", "message", "poem")
ABOUT = frozenset({"readme", "license", "licence", "copying", "notice", "source", "sources", "citation", "changelog"})
SEPARATOR = "<|endoftext|>"  # alone on a line: between documents of one file
TRAINING = frozenset({"train", "training"})
HELD_OUT = frozenset({"validation", "valid", "val", "dev", "test", "testing", "heldout"})


class TextOptions(DocumentOptions):
    """How text is read. A column is found by its name, or is the only one that holds words; without `text_column`,
    columns of instructions (prompt and completion, messages) make conversations."""

    text_column: str | None = None
    label_column: str | None = None  # becomes "label"
    folder_labels: bool = False  # the outermost folder becomes "label"
    document: Literal["file", "line"] = "file"  # what one document is in files that are no tables


class TextModality:
    """.txt, .md, .rst, .json, .jsonl, .csv, .tsv and .parquet, each also as .gz, and a .zip of them."""

    name = "text"
    kind = TEXT
    options = TextOptions

    def sniff(self, path: Path) -> Sniff:
        """By the names of the files, those that only describe the data apart."""
        if not path.exists():
            return Sniff(0.0, f"{path} does not exist")
        if path.is_file() and path.suffix.lower() == ".zip":
            names = zip_names(path)
        elif path.is_file():
            suffix = _suffix(path.name)
            if suffix == ".json":
                return Sniff(0.6, "a .json file, perhaps of texts")
            return Sniff(0.95 if suffix in READ else 0.0, f"{suffix or 'no suffix'} is {_is(suffix in READ)} text")
        else:
            names = [f.name for f in walk(path, lambda n, folder: exclusion_reason(n, True) if folder else None)[0]]
        names = [n for n in names if not _describes(n)] or names
        ours = sum(_suffix(n) in READ for n in names)
        if names and ours == len(names) and all(_suffix(n) == ".json" for n in names):
            return Sniff(0.6, f"{ours:,} .json files, perhaps of texts")
        return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are text or tables of it")

    def read(self, path: Path, options: TextOptions) -> Corpus:
        """One Item a file, a line, a row, or a part between lines `<|endoftext|>`.

        Files named or lying under train and validation (val, test, ...) keep that split. Raises UserError when
        no text is found, when a column is missing or cannot be chosen, or when some are texts and some conversations.
        """
        corpus = Corpus([])
        for name, suffix, raw in _contents(path, options, corpus):
            try:
                found = list(_items(name, suffix, raw, options, corpus))
            except FileError as error:
                corpus.refused.append(Refused(name, str(error)))
                continue
            label = PurePosixPath(name).parts[0] if "/" in name and options.folder_labels else None
            labels = {"label": label} if label else {}
            corpus.items += [replace(i, labels={**i.labels, **labels}, split=_split_of(name)) for i in found]
        if not corpus.items:
            why = "".join(f"\n  {r.source}: {r.reason}" for r in corpus.refused[:5])
            raise UserError(f"There is no usable text in {path} ({', '.join(sorted(READ))}, also .gz and .zip).{why}")
        _check_labels(corpus, options)
        _check_kinds(corpus)
        corpus.items = _with_splits(corpus)
        corpus.items, notes = limit_bytes(corpus.items, options.max_bytes)
        corpus.notes += notes
        return corpus

    def fit(self, items: Sequence[Item], options: TextOptions) -> DocumentEncoder:
        tokenizer, conds, notes = fit_documents(items, options)
        records = any(i.turns for i in items)
        return DocumentEncoder(tokenizer, options.context, conds, not_blank, notes=notes, records=records)

    def load(self, folder: Path) -> DocumentEncoder:
        return load_documents(folder, _check)


MODALITY = TextModality()


def _check(languages: tuple[str, ...]) -> Any:
    return not_blank


def _is(ours: bool) -> str:
    return "read as" if ours else "not"


def _suffix(name: str) -> str:
    """Lower-cased, without .gz."""
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def _describes(name: str) -> bool:
    """Whether a file is about the data rather than part of it."""
    stem = PurePosixPath(name).name.split(".")[0].lower()
    return stem in ABOUT and _suffix(name) in (".md", ".rst", ".txt", "")


# --------------------------------------------------------------------------- reading


def _contents(path: Path, options: TextOptions, corpus: Corpus) -> Iterator[tuple[str, str, bytes]]:
    """(name, suffix, content) of every file that may hold text; the others go to `corpus.refused`."""
    if path.is_file() and path.suffix.lower() == ".zip":
        members, refused = read_zip(path, READ, ZipLimits(member_bytes=options.max_file_mb * MB))
        for name, raw in members:
            if (pattern := matching_pattern(name, options.exclude)) is not None:
                refused.append(Refused(name, f"excluded by {pattern!r}"))
            else:
                yield name, _suffix(name), raw
        corpus.refused += refused
        return

    def leave_out(name: str, folder: bool) -> str | None:
        pattern = matching_pattern(name, options.exclude)
        return None if pattern is None else f"excluded by {pattern!r}"

    files, refused = walk(path, leave_out)
    corpus.refused += refused
    about = {f.name for f in files if _describes(f.name)}
    if len(about) == len(files):
        about = set()
    for file in files:
        suffix = _suffix(file.name)
        reason = None if suffix in READ else f"not a kind of text that is read ({file.suffix or 'no suffix'})"
        if suffix == ".zip":
            reason = "an archive within a folder: give its own path, or unpack it"
        if file.name in about:
            reason = "describes the data; give its own path to train on it"
        try:
            raw = b"" if reason else read_bytes(file, options.max_file_mb)
        except FileError as error:
            reason = str(error)
        if reason:
            corpus.refused.append(Refused(file.name, reason))
        else:
            yield file.name, suffix, raw


def _items(name: str, suffix: str, raw: bytes, options: TextOptions, corpus: Corpus) -> Iterator[Item]:
    if suffix in tables.SUFFIXES:
        yield from _rows(name, tables.read_table(suffix, raw, options.max_file_mb), options, corpus)
        return
    text = decode_text(raw)
    if options.document == "line":
        parts = [(f"{name}, line {n}", line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1)]
        parts = [(where, line) for where, line in parts if line.strip()]
    else:
        parts = [(name, text)]
        lines = text.splitlines(keepends=True) if SEPARATOR in text else []
        if any(line.strip() == SEPARATOR for line in lines):
            documents = _between(lines)
            parts = [(f"{name}, document {n}", d) for n, d in enumerate(documents, 1) if d.strip()]
            corpus.notes.append(f"{name}: {len(parts):,} documents between lines {SEPARATOR}")
        elif _looks_like_a_list(text):
            corpus.notes.append(
                f"{name} has {text.count(chr(10)):,} short lines and none is blank: if each is a text of its own, "
                "set the option document to line"
            )
    if not any(part.strip() for _, part in parts):
        raise FileError("nothing but white space")
    for where, part in parts:
        yield Item(part, where)


def _looks_like_a_list(text: str) -> bool:
    """Whether a long file is a list (names, molecules, sentences): many short lines, none of them blank."""
    lines = text.rstrip().split("\n")
    return len(lines) >= 500 and all(0 < len(line.strip()) <= 500 for line in lines)


def _between(lines: Sequence[str]) -> list[str]:
    documents: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    return ["".join(d) for d in documents]


def _rows(name: str, table: tables.Table, options: TextOptions, corpus: Corpus) -> Iterator[Item]:
    """One Item a row. Raises UserError when a column is missing or cannot be chosen."""
    corpus.refused += [Refused(f"{name}, row {n}", reason) for n, reason in table.bad]
    corpus.notes += [f"{name}: {note}" for note in table.notes]
    if not table.rows:
        raise FileError("no row that can be used")
    form = None if options.text_column is not None else chat.chat_columns(table.columns)
    column = "" if form else _text_column(name, table, options)
    if options.label_column is not None and options.label_column not in table.columns:
        raise UserError(f"{name} has no column {options.label_column!r}. Its columns: {', '.join(table.columns)}.")
    used = form.columns if form else (column,)
    unused = [c for c in (*table.columns, *table.skipped) if c not in (*used, options.label_column)]
    what = (
        f"conversations from {_list(used)}, of which the answers are learnt"
        if form
        else f"the text is column {column!r}"
    )
    corpus.notes.append(f"{name}: {what}{f'; not used: {_list(unused)}' if unused else ''}")
    for number, row in table.rows:
        where, content = f"{name}, row {number}", _content(row, column, form)
        if isinstance(content, str):
            corpus.refused.append(Refused(where, content))
            continue
        label = row.get(options.label_column) if options.label_column else None
        if label is not None and (isinstance(label, dict | list) or not str(label).isprintable()):
            corpus.notes.append(f"{where}: {options.label_column} is no plain value, so it has no label")
            label = None
        labels = {} if label in (None, "") else {"label": str(label)}
        yield Item(content[0], where, labels, turns=content[1])


def _content(row: tables.Row, column: str, form: chat.ChatColumns | None) -> tuple[str, chat.Turns] | str:
    """The text of a row and, where it is a conversation, its turns; or why it cannot be used."""
    if form is not None:
        turns = chat.parse_turns(row, form)
        return turns if isinstance(turns, str) else (chat.display_text(turns), turns)
    why = chat.text_problem(row.get(column), repr(column))
    return (row[column], ()) if why is None else why


def _text_column(name: str, table: tables.Table, options: TextOptions) -> str:
    if options.text_column is not None:
        if options.text_column in table.columns:
            return options.text_column
        raise UserError(f"{name} has no column {options.text_column!r}. Its columns: {', '.join(table.columns)}.")
    candidates = [c for c in table.texts if c != options.label_column]
    by_name = {c.lower().strip(): c for c in reversed(candidates)}
    for wanted in TEXT_NAMES:
        if wanted in by_name:
            return by_name[wanted]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise UserError(f"No column of {name} holds text. Its columns: {_list(table.columns)}.")
    raise UserError(
        f"{name} has several columns that could be the text: {_list(candidates)}. "
        "Say which with the option text_column."
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _check_kinds(corpus: Corpus) -> None:
    """Raises UserError when some items are texts and some conversations."""
    first = {bool(i.turns): i.source for i in reversed(corpus.items)}
    if len(first) > 1:
        raise UserError(
            f"Some of this is text ({first[False]}) and some conversations ({first[True]}), which cannot be learnt "
            "together. Give one of them, or name the column to read as plain text with the option text_column."
        )


def _check_labels(corpus: Corpus, options: TextOptions) -> None:
    """Notes on items without a label. Raises UserError when a label was asked for and none is there."""
    labelled = sum("label" in i.labels for i in corpus.items)
    if labelled == 0 and (options.label_column or options.folder_labels):
        wanted = f"label_column {options.label_column!r}" if options.label_column else "folder_labels"
        raise UserError(f"{wanted} was asked for, but no document has such a label.")
    if 0 < labelled < len(corpus.items):
        missing = len(corpus.items) - labelled
        corpus.notes.append(f"{missing:,} documents have no label: they are trained with the condition left out")


def _with_splits(corpus: Corpus) -> list[Item]:
    """Items with the split that names of files or folders say, where both sides are named; else with none."""
    counts = Counter(i.split for i in corpus.items)
    if not counts["train"] or not counts["validation"]:
        return [replace(i, split=None) for i in corpus.items]
    corpus.notes.append(
        "files and folders named train and validation (or val, dev, test) are the data's own split: "
        f"{counts['train']:,} documents to train, {counts['validation']:,} held out, {counts[None]:,} others train"
    )
    return corpus.items


def _split_of(name: str) -> str | None:
    """train/a.txt, data/val/a.txt, test.jsonl, stories_valid.txt.gz, train-00000-of-00002.parquet; else None."""
    path = PurePosixPath(name.lower())
    stem = re.sub(r"([-_]\d+)?(-of-\d+)?$", "", path.name.split(".")[0])
    words = {*path.parts[:-1], re.split(r"[-_]", stem)[-1]}
    if words & TRAINING:
        return "train"
    return "validation" if words & HELD_OUT else None
