"""Texts that are larger than memory: a sample of them, and all of them as tokens in parts on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from afresh.core import Corpus, Encoder, Examples, Item, Omission, Refused, UserError, events
from afresh.core.rng import Rng
from afresh.data.files import MB, DataFile, FileError, open_file, suffix_of
from afresh.data.imported import data_folder
from afresh.data.permutation import Order
from afresh.data.refusals import describe_refusals
from afresh.data.split import share, split_of_name
from afresh.data.tables import rows as tables
from afresh.data.text.documents import utf8_size
from afresh.data.text.encodings import TextDecoder
from afresh.data.text.kind import TEXT
from afresh.data.text.spans import SPAN, Span, read_span, spans_of
from afresh.data.token_parts import Content, TokenParts
from afresh.domains.text.reading import BLANK, NO_ROW, PROSE, Reading, TextOptions, items_of_file, items_of_rows

VERSION = 1  # of how parts are made of files
PART, MOST_PARTS = 16 * SPAN, 1 << 14  # bytes of which a part is made at least, and parts at most
SAMPLE = 80_000_000  # bytes of texts that are read to choose everything that depends on the data
FROM_SPAN = SAMPLE // 16  # of it, from one stretch of a file at most
HELD_OUT = 2_000_000  # bytes of the sample that are held out, or a tenth of it
LONGEST = MB  # characters of a document; longer ones are cut at a line end
NOTES = 6  # on single files, at most
EDGE = 4096  # bytes at the beginning, in the middle and at the end of a file that are compared


class LargeTexts:
    """Implements `afresh.core.LargeCorpus`.

    The stretches of all files are put in an order that depends on the files alone, and in which texts from everywhere
    meet. Of its beginning is the sample, and in it follow the parts.
    """

    def __init__(self, files: Sequence[DataFile], options: TextOptions) -> None:
        """Raises UserError for files that cannot be read in stretches, and for options that need all texts at once."""
        check_options(options)
        self.options, self.identity = options, identity_of(files)
        self.declared = {"train", "validation"} <= {split_of_name(f.name) for f in files}
        try:
            spans = mixed(spans_of(files, PROSE), self.identity)
        except FileError as error:
            raise UserError(f"{error}. `data.exclude` leaves a file out.", "damaged") from None
        self.learnt = [s for s in spans if not self._is_held_out(s)]
        self.validation = [s for s in spans if self._is_held_out(s)]
        self.held_out = 0.1  # until the sample is known

    def _is_held_out(self, span: Span) -> bool:
        return self.declared and split_of_name(span.file.name) == "validation"

    def sample(self) -> Corpus:
        """Documents that are spread over all files. Raises UserError for a file that cannot be read."""
        corpus = Corpus([], large=self)
        read = self._add(self.learnt, SAMPLE, corpus)
        if self.declared:
            self._add(self.validation, HELD_OUT, corpus)
        self.held_out = min(0.1, HELD_OUT / max(1, read))
        notes = list(dict.fromkeys(corpus.notes))
        rest = [Omission(f"and {len(notes) - NOTES:,} more notes like these on the sample")]
        corpus.notes = [*notes[:NOTES], *rest[: len(notes) > NOTES]]
        return corpus

    def _add(self, spans: Sequence[Span], most: int, corpus: Corpus) -> int:
        """Add the documents with which stretches begin, of at most about so many bytes; returns how many."""
        size = 0
        for span in spans:
            from_span = 0
            for item in self.documents(span, corpus):
                if size >= most:
                    return size
                if from_span >= FROM_SPAN:
                    break
                corpus.items.append(item)
                from_span, size = from_span + utf8_size(item.value), size + utf8_size(item.value)
        return size

    def documents(self, span: Span, corpus: Corpus) -> Iterator[Item]:
        """The documents of a stretch. Adds to the corpus what is not used of it. Raises UserError, naming the file, if
        it is damaged, and for conversations."""
        side = None if not self.declared else "validation" if self._is_held_out(span) else "train"
        try:
            items = self._items(span, corpus)
        except FileError as error:
            if str(error) in (BLANK, NO_ROW) and not span.whole:
                return
            if span.whole and suffix_of(span.file.name) not in tables.SUFFIXES:
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
                raise UserError(
                    f"{item.source} is a conversation, and of data that is larger than memory only texts can be learnt "
                    "so far. Give a part of the data, or name a column of text: `data.text_column`.",
                    "too_large",
                )
            for text in cut(item.value):
                yield replace(item, value=text, labels={}, split=side)

    def _items(self, span: Span, corpus: Corpus) -> list[Item]:
        name, options = span.file.name, self.options
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
        total = sum(s.size for s in self.learnt)
        spans_of_parts = parts_of(self.learnt, max(PART, total // MOST_PARTS))

        def read(number: int) -> Content:
            corpus = Corpus([])
            items: list[Item] = []
            digests: list[str] = []
            for span in spans_of_parts[number]:
                for item in self.documents(span, corpus):
                    digest = TEXT.digest(item.value)
                    if digest not in held and share(digest, "split") >= limit:
                        items.append(item)
                        digests.append(digest)
            if corpus.refused:
                events.warning(f"left out: {describe_refusals(corpus.refused)}", "refused", count=len(corpus.refused))
            return items, digests

        sizes = [sum(s.size for s in spans) for spans in spans_of_parts]
        return TokenParts(self._folder(encoder, held, limit), sizes, read, encoder).first()

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
        size = sum(s.size for s in (*self.learnt, *self.validation))
        return [
            Omission(
                f"{size / 1e9:,.3g} GB of texts are learnt from the disk, in parts: what depends on the data as a "
                f"whole, such as the tokenizer, is chosen from a sample of {SAMPLE / 1e6:,.0f} MB, and texts of more "
                f"than {LONGEST:,} characters are cut at a line end. Exact duplicates are left out; near duplicates "
                f"are not searched for. Tokens are kept in {data_folder()}"
            )
        ]


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


def mixed(spans: Sequence[Span], identity: str) -> list[Span]:
    """The stretches in a random order that depends on the identity of the files alone."""
    order = Order(Rng(int(identity[:15], 16)), "spans", len(spans))
    return [spans[i] for i in order.at(torch.arange(len(spans))).tolist()]


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
