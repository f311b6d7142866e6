"""Texts that are larger than memory: a sample of them, and all of them as tokens in parts on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import torch

from afresh.core import Corpus, Encoder, Examples, Item, Omission, Refused, UserError, events
from afresh.core.rng import Rng
from afresh.data.addresses import Shards
from afresh.data.collected import is_items, mark_kept
from afresh.data.files import MB, DataFile, FileError, describes_data, matching_pattern, open_file, suffix_of
from afresh.data.imported import data_folder
from afresh.data.permutation import Order
from afresh.data.refusals import describe_refusals, refusal_lines
from afresh.data.split import share, split_of_name
from afresh.data.tables import SUFFIXES
from afresh.data.tables import rows as tables
from afresh.data.text.documents import utf8_size
from afresh.data.text.encodings import TextDecoder
from afresh.data.text.kind import TEXT
from afresh.data.text.spans import SPAN, Span, read_span, spans_of
from afresh.data.token_parts import Content, TokenParts
from afresh.domains.text.reading import (
    BLANK,
    NO_ROW,
    PROSE,
    READ,
    Reading,
    TextOptions,
    items_of_data_set,
    items_of_file,
    items_of_rows,
    main_text_is_read,
)

VERSION = 1  # of how parts are made of files
PART, MOST_PARTS = 16 * SPAN, 1 << 14  # bytes of which a part is made at least, and parts at most
SAMPLE = 80_000_000  # bytes of texts that are read to choose everything that depends on the data
FROM_SPAN = SAMPLE // 16  # of it, from one stretch of a file at most
HELD_OUT = 2_000_000  # bytes of the sample that are held out, or a tenth of it
LONGEST = MB  # characters of a document; longer ones are cut at a line end
NOTES = 6  # on single files, at most
PACKED, PACKED_SUFFIXES = (
    4,
    frozenset({".parquet", ".gz", ".zst"}),
)  # how many times larger they are when unpacked, about
T = TypeVar("T")
EDGE = 4096  # bytes at the beginning, in the middle and at the end of a file that are compared


class Stretches(Protocol):
    """Stretches of files in the parts of which tokens are made. sizes: of each part, in bytes."""

    @property
    def sizes(self) -> Sequence[int]: ...
    def spans(self, part: int) -> AbstractContextManager[Sequence[Span]]: ...  # as long as they are read


@dataclass(frozen=True)
class Here:
    """Implements `Stretches` over files that are here."""

    parts: Sequence[Sequence[Span]]

    @property
    def sizes(self) -> list[int]:
        return [sum(span.size for span in spans) for spans in self.parts]

    def spans(self, part: int) -> AbstractContextManager[Sequence[Span]]:
        return nullcontext(self.parts[part])


class There:
    """Implements `Stretches` over files that are fetched one after the other, in a random order. What is in them is not
    known before, so each has as many parts as its size tells."""

    def __init__(self, shards: Shards, numbers: Sequence[int], identity: str) -> None:
        self.shards, self.identity = shards, identity
        self.parts: list[tuple[int, int, int]] = []  # number of the file, number of the part of it, and of how many
        self.sizes: list[int] = []
        for number in mixed(numbers, identity):
            size = shards.files[number].size
            times = PACKED if PurePosixPath(shards.files[number].name).suffix in PACKED_SUFFIXES else 1
            count = max(1, size * times // PART)
            self.parts += [(number, nth, count) for nth in range(count)]
            self.sizes += [size // count] * count

    @contextmanager
    def spans(self, part: int) -> Iterator[Sequence[Span]]:
        number, nth, count = self.parts[part]
        with self.shards.fetched(number) as file:
            spans = mixed(found_spans([file]), self.identity)
            begin, end = (-(-n * len(spans) // count) for n in (nth, nth + 1))  # the first part has some
            yield spans[begin:end]


@dataclass
class LargeTexts:
    """Implements `afresh.core.LargeCorpus`.

    The stretches of all files are put in an order that depends on the files alone, and in which texts from everywhere
    meet: of files at an address, from everywhere in a file. Of its beginning is the sample, and in it follow the parts.
    """

    options: TextOptions
    identity: str
    learnt: Stretches
    validation: Stretches  # of a declared split
    declared: bool
    data_set: Path | None = None  # the table of one that was collected, which declares the split of each row
    held_out: float = 0.1  # until the sample is known

    def sample(self) -> Corpus:
        """Documents that are spread over all files. Raises UserError for a file that cannot be read."""
        corpus = Corpus([], large=self)
        read = self._add(self.learnt, SAMPLE, corpus)
        if self.declared:
            self._add(self.validation, HELD_OUT, corpus)
        if self.data_set is not None:
            corpus.items = with_few_held_out(corpus.items)
        self.held_out = min(0.1, HELD_OUT / max(1, read))
        notes = list(dict.fromkeys(corpus.notes))
        rest = [Omission(f"and {len(notes) - NOTES:,} more notes like these on the sample")]
        corpus.notes = [*self.notes(), *notes[:NOTES], *rest[: len(notes) > NOTES]]
        corpus.settled = {"stream": True, "pages": "main" if main_text_is_read(self.options) else "visible"}
        return corpus

    def _add(self, stretches: Stretches, most: int, corpus: Corpus) -> int:
        """Add the documents with which stretches begin, of at most about so many bytes; returns how many."""
        size = 0
        for part in range(len(stretches.sizes)):
            with stretches.spans(part) as spans:
                for span in spans:
                    if size >= most:
                        return size
                    size += self._add_beginning(span, min(FROM_SPAN, most - size), corpus)
        return size

    def _add_beginning(self, span: Span, most: int, corpus: Corpus) -> int:
        size = 0
        for item in self.documents(span, corpus):
            if size >= most:
                break
            corpus.items.append(item)
            size += utf8_size(item.value)
        return size

    def documents(self, span: Span, corpus: Corpus) -> Iterator[Item]:
        """The documents of a stretch. Adds to the corpus what is not used of it. Raises UserError, naming the file, if
        it is damaged, and for conversations."""
        side = None if not self.declared else "validation" if is_held_out(span.file.name) else "train"
        try:
            items = self._items(span, corpus)
        except FileError as error:
            if str(error) in (BLANK, NO_ROW) and not span.whole:
                return
            if span.whole and suffix_of(span.file.name) not in SUFFIXES:
                corpus.refused.append(Refused(span.file.name, str(error)))
                return
            place = f"from byte {span.start:,} on" if span.stop is not None else "as a whole"
            raise UserError(
                f"{span.file.path} cannot be read {place}: {error}. Repair or restore it, or leave it out: "
                f"`data.exclude={span.file.name}`.",
                "damaged",
                file=str(span.file.path),
            ) from error
        for item in items:
            if item.turns:
                if self.options.learn == "texts":
                    continue
                raise UserError(
                    f"{item.source} is a conversation, and of data that is larger than memory only texts can be learnt "
                    "so far. Give a part of the data, leave conversations out (`data.learn=texts`), or name a column "
                    "of text: `data.text_column`.",
                    "too_large",
                )
            for text in cut(item.value):
                yield replace(item, value=text, labels={}, split=side or item.split)

    def _items(self, span: Span, corpus: Corpus) -> list[Item]:
        name, options = span.file.name, self.options
        if self.data_set is not None:
            return list(items_of_data_set(self.data_set, options, corpus, span.groups))
        if span.groups:
            table = tables.read_groups(span.file, span.groups, options.max_file_mb)
            return list(items_of_rows(name, table, options, corpus))
        # The encoding of a stretch is not guessed: it could be another one in each.
        encoding = options.encoding or (None if span.whole else "utf-8")
        reading = Reading(options, corpus, TextDecoder(encoding))
        return list(items_of_file(name, suffix_of(span.file.path.name), read_span(span), reading))

    # ----------------------------------------------------------------------- parts

    def examples(self, encoder: Encoder, heldout: Sequence[Item], limit: float) -> Examples:
        """The tokens of all texts but those that are held out, in parts that are made when they are needed."""
        held = frozenset(TEXT.digest(i.value) for i in heldout)

        def read(number: int) -> Content:
            corpus = Corpus([])
            items: list[Item] = []
            digests: list[str] = []
            with self.learnt.spans(number) as spans:
                for span in spans:
                    for item in self.documents(span, corpus):
                        digest = TEXT.digest(item.value)
                        if self.data_set is not None and item.split == "validation":
                            continue
                        if digest not in held and share(digest, "split") >= limit:
                            items.append(item)
                            digests.append(digest)
            if corpus.refused:
                events.warning(f"left out: {describe_refusals(corpus.refused)}", "refused", count=len(corpus.refused))
            return items, digests

        folder = self._folder(encoder, held, limit)
        if self.data_set is not None:
            mark_kept(folder.parent, self.data_set.parent)
        return TokenParts(folder, self.learnt.sizes, read, encoder).first()

    def _folder(self, encoder: Encoder, held: frozenset[str], limit: float) -> Path:
        """Where the tokens are kept: a folder that is named after all that they depend on."""
        assert encoder.abilities.texts is not None
        tokenizer = encoder.abilities.texts.tokenizer
        options = self.options.model_dump(include={"text_column", "document", "pages", "encoding"})
        digest = hashlib.sha256(f"{VERSION} {self.identity} {options} {limit!r} {encoder.conds}".encode())
        digest.update(f"{tokenizer.kind} {tokenizer.inner.to_str()} {sorted(held)}".encode())
        return data_folder() / digest.hexdigest()[:24] / "tokens"

    def notes(self) -> list[str]:
        """What is different from texts in memory."""
        size = sum(self.learnt.sizes) + sum(self.validation.sizes)
        return [
            Omission(
                f"{size / 1e9:,.3g} GB of texts are learnt from the disk, in parts: what depends on the data as a "
                f"whole, such as the tokenizer, is chosen from a sample of {SAMPLE / 1e6:,.0f} MB, and texts of more "
                f"than {LONGEST:,} characters are cut at a line end. Exact duplicates are left out; near duplicates "
                f"are not searched for. Tokens are kept in {data_folder()}"
            )
        ]


def texts_of_files(files: Sequence[DataFile], options: TextOptions) -> LargeTexts:
    """Raises UserError for files that cannot be read in stretches, and for options that need all texts at once."""
    check_options(options)
    identity, declared = identity_of(files), has_both_sides([f.name for f in files])
    spans = mixed(found_spans(files), identity)
    learnt = [s for s in spans if not (declared and is_held_out(s.file.name))]
    others = [s for s in spans if declared and is_held_out(s.file.name)]
    parts = parts_of(learnt, max(PART, sum(s.size for s in learnt) // MOST_PARTS))
    data_set = files[0].path if len(files) == 1 and is_items(files[0].path) else None
    return LargeTexts(options, identity, Here(parts), Here([others]), declared, data_set)


def texts_at_address(listing: Path, options: TextOptions, refused: list[Refused]) -> LargeTexts:
    """The texts of files that are listed. Files of other kinds are added to `refused`. Raises UserError if there are
    none, and for options that need all texts at once."""
    check_options(options)
    shards = Shards(listing)
    names = dict(enumerate(file.name for file in shards.files))
    reasons = {n: refusal(name, options) for n, name in names.items()}
    refused += [Refused(names[n], reason) for n, reason in reasons.items() if reason is not None]
    used = [n for n, reason in reasons.items() if reason is None]
    if not used:
        raise UserError(
            f"None of the {len(names):,} files at the address is a text or a table that is read from there.",
            lines=refusal_lines(refused),
        )
    known = [(file.name, file.size, file.tag) for file in (shards.files[n] for n in used)]
    identity = hashlib.sha256(str(known).encode()).hexdigest()
    declared = has_both_sides([names[n] for n in used])
    held = [n for n in used if declared and is_held_out(names[n])]
    learnt, validation = (There(shards, some, identity) for some in ([n for n in used if n not in held], held))
    return LargeTexts(options, identity, learnt, validation, declared)


def refusal(name: str, options: TextOptions) -> str | None:
    """Why a file at an address is not used; None if it is."""
    if (pattern := matching_pattern(name, options.exclude)) is not None:
        return f"excluded by {pattern!r}"
    if describes_data(name):
        return "describes the data"
    return None if suffix_of(name) in READ else "unsupported text format"


def has_both_sides(names: Sequence[str]) -> bool:
    """Whether files define a split by their names."""
    return {"train", "validation"} <= {split_of_name(name) for name in names}


def is_held_out(name: str) -> bool:
    return split_of_name(name) == "validation"


def found_spans(files: Sequence[DataFile]) -> list[Span]:
    """The stretches of files. Raises UserError for a file that cannot be read in stretches."""
    try:
        return spans_of(files, PROSE)
    except FileError as error:
        raise UserError(f"{error}. `data.exclude` leaves a file out.", "damaged") from None


def check_options(options: TextOptions) -> None:
    """Raises UserError for options that cannot be used with texts that are larger than memory."""
    given = {
        "label_column": options.label_column,
        "folder_labels": options.folder_labels,
        "number_columns": options.number_columns,
        "max_bytes": options.max_bytes,
    }
    if names := [name for name, value in given.items() if value]:
        raise UserError(
            f"`data.{names[0]}` cannot be used with texts that are larger than memory, which are learnt without "
            "conditions and as a whole. Leave it out, or give a part of the texts.",
            "too_large",
        )


def identity_of(files: Sequence[DataFile]) -> str:
    """SHA-256 over the names and sizes of the files and EDGE bytes at three places of each that has more, in
    hexadecimal. It does not tell every change: the sample is compared, too. Raises UserError."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.size}\n".encode("utf-8", "surrogatepass"))
        if file.size <= SPAN:
            continue
        try:
            with open_file(file) as stream:
                for place in (0, file.size // 2, max(0, file.size - EDGE)):
                    stream.seek(place)
                    digest.update(stream.read(EDGE))
        except (FileError, OSError) as error:
            raise UserError(f"{file.path} cannot be read: {error}. Restore it.", "damaged") from None
    return digest.hexdigest()


def mixed(spans: Sequence[T], identity: str) -> list[T]:
    """Stretches, or files, in a random order that depends on the identity of the files alone."""
    order = Order(Rng(int(identity[:15], 16)), "spans", len(spans))
    return [spans[i] for i in order.at(torch.arange(len(spans))).tolist()]


def with_few_held_out(items: Sequence[Item]) -> list[Item]:
    """The items without those of the held-out side that follow its first HELD_OUT bytes."""
    size = 0
    out = []
    for item in items:
        if item.split == "validation":
            if size >= HELD_OUT:
                continue
            size += utf8_size(item.value)
        out.append(item)
    return out


def parts_of(spans: Sequence[Span], size: int) -> list[list[Span]]:
    """Stretches that follow each other in groups of at least `size` bytes; what is left belongs to the last."""
    parts: list[list[Span]] = [[]]
    filled = 0
    for span in spans:
        if filled >= size:
            parts.append([])
            filled = 0
        parts[-1].append(span)
        filled += span.size
    return parts


def cut(text: str) -> Iterator[str]:
    """A text, or its pieces of at most LONGEST characters, which end at line ends if there are any."""
    start = 0
    while len(text) - start > LONGEST:
        end = text.rfind("\n", start + 1, start + LONGEST) + 1 or start + LONGEST
        yield text[start:end]
        start = end
    yield text[start:]
