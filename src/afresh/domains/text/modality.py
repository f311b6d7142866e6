"""Text: files of prose, or tables with a column of text, to a stream of tokens and back to .txt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from afresh.core import Corpus, Item, Omission, Sniff, UserError
from afresh.core.plural import counted
from afresh.data.addresses import is_listing
from afresh.data.collected import SCHEMA, data_set_size, is_items
from afresh.data.files import (
    MB,
    FileError,
    describes_data,
    named,
    suffix_of,
    walk,
    zip_names,
)
from afresh.data.refusals import refusal_lines
from afresh.data.tables import SUFFIXES
from afresh.data.tables import rows as tables
from afresh.data.text.documents import (
    DocumentEncoder,
    Room,
    fit_documents,
    limit_bytes,
    load_documents,
    utf8_size,
)
from afresh.data.text.encodings import TextDecoder, Waiting
from afresh.data.text.kind import TEXT
from afresh.data.text.languages import PROGRAMS, exclusion_reason, language_of
from afresh.data.text.tokenizer import Tokenizer
from afresh.domains.text.large import LargeTexts, texts_at_address, texts_of_files
from afresh.domains.text.reading import (
    READ,
    Reading,
    TextFiles,
    TextOptions,
    contents,
    find_texts,
    items_of_data_set,
    labelled_items,
    main_text_is_read,
    pages_note,
)
from afresh.domains.text.recognise import SURE, of_names, of_table
from afresh.domains.text.token_files import SUFFIXES as TOKENS
from afresh.domains.text.token_files import LargeTokens, find_token_files, may_be_tokens
from afresh.runs.formats.huggingface import read_tokenizer

LOOKED_AT = 4  # tables of a folder


class TextModality:
    """.txt, .md, .rst, .html, .eml, .mbox, .docx, .odt, .epub, .pdf, .json, .jsonl, .csv, .tsv, .xlsx and .parquet,
    each also as .gz, and a .zip of them."""

    name = "text"
    kind = TEXT
    options = TextOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the names of the files, without those that only describe the data, and by the beginning of the
        first one, which may be of a kind that is not text although it can be read as such."""
        if is_items(path):
            return Sniff(1.0, "the texts of a data set that was collected", columns=len(SCHEMA))
        if is_listing(path):
            return Sniff(1.0, "files at an address", columns=1)
        seen = _seen(path)
        names = _names(path)
        if seen is not None and (not seen.score or all(suffix_of(n) in SUFFIXES for n in names)):
            return seen
        columns = seen.columns if seen is not None else 0
        if (
            names
            and all(PurePosixPath(n).suffix.lower() in TOKENS for n in names)
            and all(map(may_be_tokens, walk(path)[0]))
        ):
            return Sniff(0.9, "files of tokens")
        if path.is_file() and path.suffix.lower() != ".zip":
            suffix = suffix_of(path.name)
            if suffix == ".json":
                return Sniff(0.6, "a .json file, which may contain texts")
            is_text = "read as" if suffix in READ else "not"
            return Sniff(SURE if suffix in READ else 0.0, f"{suffix or 'no suffix'} is {is_text} text", columns=columns)
        ours = _texts(names)
        if ours and len(ours) == len(names) and all(suffix_of(n) == ".json" for n in names):
            return Sniff(0.6, f"{len(ours):,} .json files, which may contain texts")
        share = len(ours) / len(names) if names else 0.0
        return Sniff(share, f"{len(ours):,} of {len(names):,} files are text or tables", columns=columns)

    def read(self, path: Path, options: TextOptions) -> Corpus:
        """One Item per file, line, row, or part between lines `<|endoftext|>`.

        Files and folders named train and validation (val, test, ...) define the split. Raises UserError if there is no
        text, or if a column is missing or cannot be chosen. Of texts and conversations, only one kind is kept. If the
        texts need more memory than is free, the items are a sample of them, and `Corpus.large` is set.
        """
        corpus = Corpus([])
        if is_listing(path):
            return _of_large(texts_at_address(path, options, corpus.refused), corpus)
        if tokens := find_token_files(path, options, corpus.refused):
            assert isinstance(options.tokenizer, Path)
            return _of_large(LargeTokens(tokens, named_tokenizer(options.tokenizer)), corpus)
        found = find_texts(path, options, corpus.refused)
        data_set = is_items(path)
        room, size = Room(options), data_set_size(path) if data_set else found.size
        if options.stream and found.files is None:
            raise UserError(
                f"`data.stream=true` needs files that can be read in any order: unpack {path} into a folder."
            )
        if found.files and (options.stream or (options.stream is None and not room.holds(size))):
            return _of_large(texts_of_files(found.files, options), corpus)
        corpus.settled = {"stream": False}
        if data_set:
            room.check(size)
            corpus.items = list(items_of_data_set(path, options, corpus))
        else:
            _add_items_of_files(found, room, options, corpus)
        if not corpus.items:
            raise UserError(
                f"No usable text in {path} ({', '.join(sorted(READ))}, also .gz and .zip).",
                lines=refusal_lines(corpus.refused),
            )
        _keep_one_kind(corpus, options)
        _check_labels(corpus, options)
        corpus.items = _with_splits(corpus)
        corpus.items, notes = limit_bytes(corpus.items, options.max_bytes)
        corpus.notes += notes
        return corpus

    def fit(self, items: Sequence[Item], options: TextOptions) -> DocumentEncoder:
        named = named_tokenizer(options.tokenizer) if isinstance(options.tokenizer, Path) else None
        tokenizer, conds, notes = fit_documents(items, options, named=named)
        records = any(i.turns for i in items)
        return DocumentEncoder(tokenizer=tokenizer, context=options.context, conds=conds, notes=notes, records=records)

    def load(self, folder: Path) -> DocumentEncoder:
        return load_documents(folder)


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
    for file in [f for f in files if suffix_of(f.name) in SUFFIXES - {".json"}][:LOOKED_AT]:
        with suppress(FileError, OSError, EOFError):  # reading it reports what is wrong
            seen.append(of_table(tables.read_head(file)))
    return min(seen, key=lambda s: (s.score, -s.columns), default=None)


def _add_items_of_files(found: TextFiles, room: Room, options: TextOptions, corpus: Corpus) -> None:
    """Raises UserError if they need more memory than is free."""
    reading = Reading(options, corpus, TextDecoder(options.encoding, together=True))
    room.check(sum(f.size for f in found.files or () if f.size <= options.max_file_mb * MB))
    size = 0
    items: list[list[Item]] = []  # of each file
    waiting: list[tuple[int, str, str, bytes]] = []  # the place of a file, and what it is read from
    for name, suffix, raw in contents(found, options, corpus.refused):
        size += len(raw)
        room.check(size)  # of archives, the sizes are not known before
        try:
            items.append(labelled_items(name, suffix, raw, reading))
        except Waiting:
            waiting.append((len(items), name, suffix, raw))
            items.append([])
    reading.decoder.decide()
    for place, name, suffix, raw in waiting:
        items[place] = labelled_items(name, suffix, raw, reading)
    corpus.items = list(chain.from_iterable(items))
    corpus.notes += reading.decoder.notes()
    if options.document == "auto" and len(reading.documents) == 1:
        corpus.settled = {**corpus.settled, "document": next(iter(reading.documents))}
    if reading.pages:
        main = main_text_is_read(options)
        corpus.settled = {**corpus.settled, "pages": "main" if main else "visible"}
        corpus.notes.append(pages_note(len(reading.pages), main))


def _of_large(texts: LargeTexts | LargeTokens, found: Corpus) -> Corpus:
    """A sample of texts that are larger than memory, with what was refused when they were found."""
    sample = texts.sample()
    sample.refused = [*found.refused, *sample.refused]
    return sample


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
    folders = Counter(PurePosixPath(i.source).parts[0] for i in corpus.items if "/" in i.source and i.split is None)
    if not labelled and len(folders) > 1 and folders.total() > max(len(folders), len(corpus.items) // 2):
        names = ", ".join([*sorted(folders)[:6], *(["..."] if len(folders) > 6 else [])])
        corpus.notes.append(
            f"the texts are in {len(folders):,} folders ({names}), whose names are not learnt: "
            "`data.folder_labels=true` makes labels of them, to ask for texts of one folder"
        )


def _with_splits(corpus: Corpus) -> list[Item]:
    """Items with the split according to the names of files or folders, if both parts occur; otherwise without."""
    counts = Counter(i.split for i in corpus.items)
    if not counts["train"] or not counts["validation"]:
        return [replace(i, split=None) for i in corpus.items]
    corpus.notes.append(
        "the data has a split of its own (train and validation, or val, dev, test): "
        f"{counts['train']:,} documents to train, {counts['validation']:,} held out, {counts[None]:,} others to train"
    )
    return corpus.items


TOKENIZER = "tokenizer.json"


def named_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, of a folder that holds one, or of a run. Raises UserError."""
    folder = path.parent if path.name == TOKENIZER else path
    if (folder / "run.json").is_file():
        return Tokenizer.load(folder / "encoder" / TOKENIZER)
    if not (folder / TOKENIZER).is_file():
        raise UserError(
            f"`data.tokenizer={path}` names no tokenizer. Give the path of a {TOKENIZER} of the library tokenizers, of "
            "a folder that has one, or of a run; or auto, chars, bytes or bpe, which are made of the texts."
        )
    return read_tokenizer(folder)
