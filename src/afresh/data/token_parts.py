"""Streams of tokens that are larger than memory, as parts in files that are made when they are first needed.

A part is a safetensors file with its tokens, where its documents begin, and the fingerprints of their content, by which
later parts leave out exact copies. It is written aside, synced and renamed, and never changed. Which documents a part
has depends on those before it, so parts are made in their order, by one thread, ahead of training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor

from afresh.core import Cond, Encoder, Examples, Item, UserError, events
from afresh.core.plural import counted
from afresh.data.storage.files import replace_file

Fingerprints = NDArray[np.int64]
MOST_KNOWN = 1 << 24  # contents: 128 MB, and as much again while some are added


def fingerprints_of(digests: Sequence[str]) -> Fingerprints:
    """The first 64 bits of digests in hexadecimal, (N,). Two of a hundred million different contents are alike with a
    probability of 3 in 10,000."""
    return np.array([int(d[:16], 16) for d in digests], dtype=np.uint64).view(np.int64)


class KnownContents:
    """Fingerprints of contents that have occurred, in their order: the first `most`. Copies of later contents are not
    found; `full` says whether there were any."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self.most, self.full = most, False
        self.known: Fingerprints = np.zeros(0, dtype=np.int64)

    def new(self, contents: Fingerprints) -> NDArray[np.bool_]:
        """Which of the contents (N,) have not occurred before, neither here nor among themselves; (N,)."""
        places = np.searchsorted(self.known, contents).clip(0, max(0, len(self.known) - 1))
        out = self.known[places] != contents if len(self.known) else np.ones(len(contents), dtype=bool)
        first = np.zeros(len(contents), dtype=bool)
        first[np.unique(contents, return_index=True)[1]] = True
        return np.asarray(out & first)

    def add(self, contents: Fingerprints) -> None:
        """Know further contents, which are new."""
        added = contents[: self.most - len(self.known)]
        self.full = self.full or len(added) < len(contents)
        self.known = np.sort(np.concatenate([self.known, added]), kind="stable")


TOKENS, BOUNDS, PRINTS = "tokens", "bounds", "fingerprints"
MOST_HEADER = 1 << 20  # bytes that describe the tensors of a file
SMALL = 1 << 16  # ids of a vocabulary that takes two bytes a token

Content = tuple[list[Item], list[str]]  # the documents of a part with their digests, also copies


@dataclass(frozen=True)
class Made:
    """A part in a file: the type of its tokens and where they begin, and its numbers of tokens, documents and bytes."""

    path: Path
    dtype: np.dtype[np.generic]
    offset: int
    counts: Counter[str]

    @property
    def tokens(self) -> int:
        return self.counts["tokens"]

    def ids(self, first: int, last: int) -> NDArray[np.int64]:
        """Its tokens from `first` to `last`, as far as the file has them."""
        place = self.offset + first * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, last - first, offset=place).astype(np.int64)


class TokenParts:
    """Implements `core.space.Parts` in a folder. `sizes`: of what each part is made, in bytes. `read`: the documents of
    a part without those that are held out; it may raise UserError."""

    ready = 0

    def __init__(self, folder: Path, sizes: Sequence[int], read: Callable[[int], Content], encoder: Encoder) -> None:
        self.folder, self.sizes, self.read_part, self.encoder = folder, sizes, read, encoder
        self.made: list[Made] = []
        self.known, self.known_of = KnownContents(), 0  # of the parts before this one
        self.asked = 0
        self.changed = Condition()
        self.thread: Thread | None = None
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def total(self) -> int:
        """Tokens of all parts; of those that are not made, as many for a byte as of those that are."""
        return self._of_all("tokens")

    @property
    def documents(self) -> int:
        """Documents of all parts, like `total`."""
        return self._of_all("documents")

    def _of_all(self, count: str) -> int:
        with self.changed:
            made = list(self.made)
        found, size = sum(m.counts[count] for m in made), sum(self.sizes[: len(made)])
        return found if len(made) == len(self) else round(found / max(1, size) * sum(self.sizes))

    def ask(self, count: int) -> None:
        """Make the first `count` parts in a thread, unless they are made. A daemon: what it leaves unfinished when the
        process ends is made again."""
        with self.changed:
            self.asked = max(self.asked, min(count, len(self)))
            if self.thread is None and self.error is None and len(self.made) < self.asked:
                context = copy_context()
                self.thread = Thread(target=lambda: context.run(self._make_asked), name="parts", daemon=True)
                self.thread.start()

    def tokens(self, part: int) -> int:
        return self.wait_for(part).tokens

    def wait_for(self, part: int) -> Made:
        """Raises what went wrong when it was made."""
        if part >= len(self.made):
            self.ask(part + 1)
            with self.changed:
                self.changed.wait_for(lambda: part < len(self.made) or self.error is not None)
                if part >= len(self.made):
                    assert self.error is not None
                    raise self.error
        return self.made[part]

    def read(self, part: Tensor, position: Tensor) -> Tensor:
        return read_rows(self.wait_for, part, position, damaged)

    def first(self) -> Examples:
        """The first part as examples in memory, with all parts. Raises UserError if nothing is left in it."""
        tensors = load(self.wait_for(0).path.read_bytes())
        x, bounds = torch.from_numpy(tensors[TOKENS].astype(np.int32)), torch.from_numpy(tensors[BOUNDS])
        if not len(x):
            raise UserError("Nothing is left to train on: all texts are held out or refused. Give other texts.")
        cond = Cond.unconditional(self.encoder.conds, len(bounds) - 1)
        return Examples(x, cond, bounds=bounds, bytes=self._of_all("bytes"), parts=self)

    # ----------------------------------------------------------------------- making

    def _make_asked(self) -> None:
        try:
            while True:
                with self.changed:
                    number = len(self.made)
                    if number >= self.asked:
                        self.thread = None
                        return
                path = self.folder / f"{number:06d}.safetensors"
                made = described(path) if path.exists() else self._make(number, path)
                with self.changed:
                    self.made.append(made)
                    self.changed.notify_all()
        except BaseException as error:  # raised where the part is waited for, which may be hours later
            if isinstance(error, UserError):
                events.warning(f"Training ends when it needs part {len(self.made) + 1:,}: {error}", error.code)
            with self.changed:
                self.error, self.thread = error, None
                self.changed.notify_all()

    def _make(self, number: int, path: Path) -> Made:
        was_full = self.known.full
        for earlier in self.made[self.known_of : number]:
            self.known.add(load(earlier.path.read_bytes())[PRINTS])
        self.known_of = number
        if self.known.full and not was_full:
            events.note(
                f"from here on, copies are found of the first {self.known.most:,} documents only", "duplicates_bounded"
            )
        items, digests = self.read_part(number)
        prints = fingerprints_of(digests)
        new = self.known.new(prints)
        kept = [item for item, is_new in zip(items, new.tolist(), strict=True) if is_new]
        if copies := len(items) - len(kept):
            events.detail(f"part {number + 1:,}: {counted(copies, 'exact duplicate')} left out", "part_duplicates")
        write_part(path, self._encoded(kept), prints[new])
        return described(path)

    def _encoded(self, items: Sequence[Item]) -> Examples:
        if not items:
            return Examples(torch.zeros(0, dtype=torch.int32), Cond(0), bounds=torch.zeros(1, dtype=torch.int64))
        return self.encoder.encode(items)


def read_rows(
    part_of: Callable[[int], Made], part: Tensor, position: Tensor, damaged: Callable[[Path], UserError]
) -> Tensor:
    """Ids (B, T) int64 at consecutive positions (B, T) of parts (B,); 0 outside of the part. Raises what `damaged`
    makes of the path of a file that is shorter than its parts.

    Rows are read from the files, not mapped, so that what was read does not stay in the process.
    """
    out = torch.zeros(position.shape, dtype=torch.int64)
    begins = position[:, 0].tolist()
    for row, (number, begin) in enumerate(zip(part.tolist(), begins, strict=True)):
        made = part_of(number)
        first, last = max(0, begin), min(made.tokens, begin + position.shape[1])
        if first < last:
            ids = made.ids(first, last)
            if len(ids) != last - first:
                raise damaged(made.path)
            out[row, first - begin : last - begin] = torch.from_numpy(ids)
    return out


def write_part(path: Path, examples: Examples, prints: Fingerprints) -> None:
    """Raises UserError if the file cannot be written."""
    assert examples.bounds is not None
    ids = examples.x.numpy()
    small = not len(ids) or int(ids.max()) < SMALL
    tensors = {TOKENS: ids.astype(np.uint16 if small else np.int32), BOUNDS: examples.bounds.numpy(), PRINTS: prints}
    content = save(tensors, {"bytes": str(examples.bytes)})
    replace_file(path, content, "Make room there, or set AFRESH_DATA_FOLDER to another folder")


def described(path: Path) -> Made:
    """What a file of a part says about itself. Raises UserError if it is damaged."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > MOST_HEADER:
                raise damaged(path)
            header = json.loads(stream.read(size))
        begin, end = header[TOKENS]["data_offsets"]
        dtype: np.dtype[np.generic] = np.dtype({"U16": np.uint16, "I32": np.int32}[header[TOKENS]["dtype"]])
        last = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if 8 + size + last != path.stat().st_size:
            raise damaged(path)
        counts = Counter(
            tokens=(end - begin) // dtype.itemsize,
            documents=header[BOUNDS]["shape"][0] - 1,
            bytes=int(header["__metadata__"]["bytes"]),
        )
        return Made(path, dtype, 8 + size + begin, counts)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged. Remove it: it is made again from the data.", "damaged", file=str(path))
