"""Texts that another program has made into tokens: .bin files as nanoGPT and llm.c write them, and arrays in .npy.

They are learnt from the disk as they are: nothing is copied, and windows are drawn from all of them. Their numbers mean
nothing without the tokenizer that they were made by, which the user names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Cond, Corpus, Encoder, Examples, Item, Omission, Refused, UserError
from afresh.core.plural import counted
from afresh.data.files import DataFile, FileError, describes_data, matching_pattern, open_file, suffix_of, walk
from afresh.data.image.arrays import array_header
from afresh.data.limits import parsing
from afresh.data.split import split_of_name
from afresh.data.text.documents import utf8_size
from afresh.data.text.tokenizer import Tokenizer
from afresh.data.token_parts import SMALL, Made, read_rows
from afresh.domains.text.large import check_options, identity_of
from afresh.domains.text.reading import READ, TextOptions

SUFFIXES = frozenset({".bin", ".npy"})
MAGIC: dict[int, np.dtype[np.generic]] = {
    20240520: np.dtype("<u2"),
    20240801: np.dtype("<u4"),
}  # of llm.c, with the type of what follows its header
HEADER = 256 * 4  # bytes of it: 256 numbers; the third is the count of tokens
PEEK = 1 << 12  # tokens at the beginning that tell whether they have four bytes
STRETCHES = 16  # that are held out, or read as a sample, from all over the files
HELD_OUT, SAMPLE = 500_000, 4_000_000  # tokens of them together; of few tokens a tenth is held out
BORDER = 1 << 16  # tokens in which the end of a document is looked for


class TokenFiles:
    """Implements `afresh.core.space.Parts` over stretches of files that are there."""

    def __init__(self, parts: Sequence[Made], tokenizer: Tokenizer, bytes_of_token: float) -> None:
        self.parts, self.tokenizer, self.bytes_of_token = parts, tokenizer, bytes_of_token
        self.ready = len(parts)
        self.total = sum(p.tokens for p in parts)
        first = self._first_ids()
        self.documents = max(1, round(self.total / len(first) * int((first == tokenizer.special["end"]).sum())))

    def __len__(self) -> int:
        return len(self.parts)

    def ask(self, count: int) -> None:
        """Do nothing: all are there."""

    def tokens(self, part: int) -> int:
        return self.parts[part].tokens

    def read(self, part: Tensor, position: Tensor) -> Tensor:
        """Ids (B, T) int64 at consecutive positions (B, T) of parts (B,); 0 outside of the part. Raises UserError for a
        file that is shorter than it was, and for a token that the tokenizer does not have."""
        out = read_rows(self.parts.__getitem__, part, position, shorter_error)
        for row in ((out < 0) | (out >= self.tokenizer.size)).any(1).nonzero()[:, 0].tolist():
            check_ids(out[row].numpy(), self.parts[int(part[row])], int(position[row, 0]), self.tokenizer)
        return out

    def first(self, encoder: Encoder) -> Examples:
        """The beginning of the first part as examples in memory, with all parts."""
        ids = self._first_ids()
        ends = np.flatnonzero(ids == self.tokenizer.special["end"]) + 1
        bounds = torch.from_numpy(np.unique([0, *ends.tolist(), len(ids)]))
        cond = Cond.unconditional(encoder.conds, len(bounds) - 1)
        size = round(self.total * self.bytes_of_token)
        return Examples(torch.from_numpy(ids.astype(np.int32)), cond, bounds=bounds, bytes=size, parts=self)

    def _first_ids(self) -> NDArray[np.int64]:
        return read_ids(self.parts[0], 0, min(self.parts[0].tokens, SAMPLE // STRETCHES), self.tokenizer)


class LargeTokens:
    """Implements `afresh.core.LargeCorpus` over files of tokens."""

    held_out = 0.1  # of items that are not divided otherwise, which these are

    def __init__(self, files: Sequence[DataFile], tokenizer: Tokenizer) -> None:
        """Raises UserError for files that hold no tokens."""
        self.tokenizer, self.identity = tokenizer, identity_of(files)
        self.wholes = {file.name: whole_file(file, tokenizer) for file in files}
        sides = {name: split_of_name(name) for name in self.wholes}
        declared = {"train", "validation"} <= set(sides.values())
        learnt = [made for name, made in self.wholes.items() if not declared or sides[name] != "validation"]
        total = sum(made.tokens for made in learnt)
        if declared:
            others = [made for name, made in self.wholes.items() if sides[name] == "validation"]
            self.learnt, self.held = learnt, [s for s, held in divide(others, HELD_OUT, tokenizer) if held]
        else:
            pieces = divide(learnt, min(HELD_OUT, total // 10), tokenizer)
            self.learnt = [piece for piece, held in pieces if not held]
            self.held = [piece for piece, held in pieces if held]
        if not self.learnt or not self.held:
            raise UserError(f"The files hold {counted(total, 'token')}, too few to hold any out. Give more.")
        self.bytes_of_token = 4.0  # until the sample is known

    def sample(self) -> Corpus:
        """Texts that are spread over all files, and those that are held out. Raises UserError for a token that the
        tokenizer does not have."""
        corpus = Corpus([], large=self, settled={"stream": True})
        tokens = size = 0
        pieces = [(piece, "train") for piece, taken in divide(self.learnt, SAMPLE, self.tokenizer) if taken]
        for piece, side in (*pieces, *((piece, "validation") for piece in self.held)):
            for item in self._documents(piece):
                corpus.items.append(replace(item, split=side))
                size += utf8_size(item.value)
            tokens += piece.tokens
        self.bytes_of_token = size / max(1, tokens)
        held = sum(made.tokens for made in self.held)
        types = ", ".join(sorted({made.dtype.name for made in self.wholes.values()}))
        corpus.notes.append(
            Omission(
                f"{counted(sum(made.tokens for made in self.learnt), 'token')} of {types} are learnt from the disk as "
                f"they are, {held:,} are held out; duplicates are not searched for"
            )
        )
        return corpus

    def _documents(self, piece: Made) -> Iterator[Item]:
        ids = read_ids(piece, 0, piece.tokens, self.tokenizer)
        begin = 0
        for end in (*np.flatnonzero(ids == self.tokenizer.special["end"]).tolist(), len(ids)):
            text = self.tokenizer.decode(ids[begin:end].tolist()).strip("\ufffd")  # characters that a stretch cuts
            if text.strip():
                yield Item(text, f"{piece.path.name}, byte {piece.offset + begin * piece.dtype.itemsize:,}")
            begin = end + 1

    def examples(self, encoder: Encoder, heldout: Sequence[Item], limit: float) -> Examples:
        """All tokens but the stretches that are held out."""
        return TokenFiles(self.learnt, self.tokenizer, self.bytes_of_token).first(encoder)


def find_token_files(path: Path, options: TextOptions, refused: list[Refused]) -> list[DataFile]:
    """The files of tokens of a path; none if texts are read there. Other files beside them are added to `refused`.
    Raises UserError if the tokenizer is not named."""

    def leave_out(name: str, folder: bool) -> str | None:
        pattern = matching_pattern(name, options.exclude)
        return None if pattern is None else f"excluded by {pattern!r}"

    files, others = walk(path, leave_out)
    tokens = [f for f in files if may_be_tokens(f)]
    rest = [f for f in files if not may_be_tokens(f)]
    if not tokens:
        return []
    if not isinstance(options.tokenizer, Path):
        if any(suffix_of(f.name) in READ and not describes_data(f.name) for f in rest):
            return []
        raise UserError(
            f"{tokens[0].path} holds tokens of another program. Name the tokenizer by which they were made: "
            "`data.tokenizer=PATH`, a tokenizer.json, a folder that has one, or a run.",
            "tokenizer_needed",
        )
    check_options(options)
    refused += [*others, *(Refused(f.name, "not a file of tokens, which are learnt here") for f in rest)]
    return tokens


def may_be_tokens(file: DataFile) -> bool:
    """Whether a file may be one of tokens, by its suffix, and for an array by its shape."""
    if file.suffix != ".npy":
        return file.suffix in SUFFIXES
    with suppress(FileError, OSError), parsing("array"), open_file(file) as stream:
        header = array_header(stream, file.size, file.name)
        return len(header.shape) == 1 and header.dtype.kind in "iu"
    return True  # reading it says what is wrong


def whole_file(file: DataFile, tokenizer: Tokenizer) -> Made:
    """All tokens of a file. Raises UserError if it holds none, or not as many as it says."""
    try:
        with parsing("file of tokens"), open_file(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if file.suffix == ".npy":
                header = array_header(stream, size, file.name)
                if len(header.shape) != 1 or header.dtype.kind not in "iu":
                    raise FileError(f"an array {header.shape} of {header.dtype}; tokens are one row of whole numbers")
                return part_of_file(
                    file.path, header.dtype, size - header.shape[0] * header.dtype.itemsize, header.shape[0]
                )
            head = stream.read(HEADER)
            magic, _, count = (int(n) for n in np.frombuffer(head[:12].ljust(12, b"\0"), "<i4"))
            declared = MAGIC.get(magic)
            if declared is not None:
                if size != HEADER + count * declared.itemsize:
                    raise FileError(f"it declares {count:,} tokens and has {max(0, size - HEADER):,} bytes of them")
                return part_of_file(file.path, declared, HEADER, count)
            stream.seek(0)
            dtype = type_of_tokens(stream.read(2 * PEEK), tokenizer.size)
            if size % dtype.itemsize:
                raise FileError(f"{size:,} bytes are no whole number of tokens of {dtype.name}")
            return part_of_file(file.path, dtype, 0, size // dtype.itemsize)
    except FileError as error:
        raise UserError(
            f"{file.path} cannot be read as tokens: {error}. Write it again, or leave it out: "
            f"`data.exclude={file.name}`.",
            "damaged",
            file=str(file.path),
        ) from None


def type_of_tokens(head: bytes, vocabulary: int) -> np.dtype[np.generic]:
    """Two bytes for each token where they are enough for the vocabulary, as other programs write them; four, if every
    other two bytes are zero."""
    halves = np.frombuffer(head[: len(head) // 4 * 4], "<u2")
    wide = vocabulary > SMALL or (len(halves) > 2 and bool(halves.any()) and not halves[1::2].any())
    return np.dtype("<u4" if wide else "<u2")


def part_of_file(path: Path, dtype: np.dtype[np.generic], offset: int, count: int) -> Made:
    return Made(path, dtype, offset, Counter(tokens=count))


def divide(parts: Sequence[Made], wanted: int, tokenizer: Tokenizer) -> list[tuple[Made, bool]]:
    """The parts in pieces, in their order, with whether a piece is among those that are taken: STRETCHES of them at
    even distances, of about `wanted` tokens together, which begin and end where documents do; all, if there are no
    more."""
    total = sum(p.tokens for p in parts)
    if wanted >= total:
        return [(part, True) for part in parts]
    length = wanted // STRETCHES
    out: list[tuple[Made, bool]] = []
    before = 0
    for part in parts:
        done = 0
        for number in range(STRETCHES):
            start = number * total // STRETCHES - before
            if length and done <= start < part.tokens:
                begin = start if start == 0 else border(part, start, tokenizer)
                end = min(part.tokens, border(part, min(start + length, part.tokens), tokenizer))
                if begin < end:
                    out += [(piece(part, done, begin), False), (piece(part, begin, end), True)]
                    done = end
        out.append((piece(part, done, part.tokens), False))
        before += part.tokens
    return [(p, taken) for p, taken in out if p.tokens]


def piece(part: Made, begin: int, end: int) -> Made:
    return part_of_file(part.path, part.dtype, part.offset + begin * part.dtype.itemsize, end - begin)


def border(part: Made, place: int, tokenizer: Tokenizer) -> int:
    """The place after the next token that ends a document; the place itself if none exists nearby."""
    ids = read_ids(part, place, min(part.tokens, place + BORDER), tokenizer)
    ends = np.flatnonzero(ids == tokenizer.special["end"])
    return place + int(ends[0]) + 1 if len(ends) else place


def read_ids(part: Made, first: int, last: int, tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Raises UserError for a file that is shorter than it was, and for a token that the tokenizer does not have."""
    ids = part.ids(first, last)
    if len(ids) != last - first:
        raise shorter_error(part.path)
    check_ids(ids, part, first, tokenizer)
    return ids


def check_ids(ids: NDArray[np.int64], part: Made, first: int, tokenizer: Tokenizer) -> None:
    """Raises UserError, naming the file and the place, for a token that the tokenizer does not have."""
    wrong = np.flatnonzero((ids < 0) | (ids >= tokenizer.size))
    if len(wrong):
        at = int(wrong[0])
        place = part.offset + (first + at) * part.dtype.itemsize
        raise UserError(
            f"{part.path} has the token {ids[at]:,} at byte {place:,}, and the tokenizer has {tokenizer.size:,} ids. "
            "Name the tokenizer by which the file was made (`data.tokenizer=PATH`), or write the file again.",
            "damaged",
            file=str(part.path),
        )


def shorter_error(path: Path) -> UserError:
    return UserError(f"{path} has fewer tokens than when it was found: restore it.", "damaged", file=str(path))
