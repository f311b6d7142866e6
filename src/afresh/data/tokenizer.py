"""Text to integers and back, without loss, in three sizes of alphabet: characters, bytes, pieces of words.

Saved as a `tokenizer.json` of the `tokenizers` library. Characters and bytes are encoded here with NumPy, which
is faster than the library; the ids are the library's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from afresh.core import UserError

Kind = Literal["chars", "bytes", "bpe"]
Ids = NDArray[np.int32]

SPECIAL = ("begin", "end", "pad")
NIBBLES = tuple(f"<0x{i:X}>" for i in range(16))  # half a byte each, of characters never seen in training
UNICODE = 0x110000
LEARN_FROM = 24_000_000  # bytes from which pieces are learnt at most: more changes few of them
SMALLEST_BPE = 256 + len(SPECIAL) + 1
LARGEST_BPE = 1 << 17
LARGEST_FILE = 1 << 26  # bytes of a tokenizer.json
PIECE = 1 << 18  # characters handed to the library at once
GROUP = 1 << 22  # characters of a batch of pieces, or of a block of characters
CUT = re.compile(r"[ \n](?=[A-Za-z])")


def choose(n_bytes: int, n_distinct: int) -> tuple[Kind, int | None, str]:
    """Kind, vocabulary size (None where the kind decides) and reason for a training text.

    At most 2 MB with at most 256 distinct characters: characters. At most 1 MB with more: bytes, for most
    characters would be too rare to learn. Otherwise pieces of words, about one for every 4 kB: the power of
    two at or below n_bytes / 4096, within 1,024 ... 16,384.
    """
    said = f"{n_bytes / 1e6:,.2f} MB with {n_distinct:,} distinct characters"
    if n_bytes <= 2_000_000 and n_distinct <= 256:
        return "chars", None, f"{said}: small, so characters"
    if n_bytes <= 1_000_000:
        return "bytes", None, f"{said}: many characters, too little text to learn each, so bytes"
    size = 1 << min(14, max(10, (n_bytes // 4096).bit_length() - 1))
    return "bpe", size, f"{said}: enough to learn {size:,} pieces of words"


@dataclass(frozen=True)
class Tokenizer:
    """Ids 0 ... size - 1; `special` names those of `begin`, `end`, `pad` and of `extra` marks (`fim_prefix`,
    `im_start`, ..., written <|fim_prefix|> in the file), which no text encodes to.

    chars: one id a character of the training text. A character never seen becomes its UTF-8 bytes, each as two
    of sixteen nibble ids (high half first): lossless, at 16 ids instead of the usual 256. bytes: id = byte of
    UTF-8. bpe: byte-level pieces (Sennrich et al. 2016; bytes as in GPT-2), every digit on its own.
    """

    kind: Kind
    inner: tokenizers.Tokenizer = field(repr=False)
    special: Mapping[str, int]

    @staticmethod
    def learn_chars(texts: Iterable[str], extra: Sequence[str] = ()) -> Tokenizer:
        """Of the characters that occur, in the order of Unicode."""
        table = np.zeros(UNICODE, dtype=bool)
        for text in texts:
            for points in _points(text):
                table[points] = True
        found = [chr(p) for p in np.flatnonzero(table).tolist()]
        names = [*found, *NIBBLES, *(f"<{s}>" for s in SPECIAL)]
        # Programs that know only the library read an unseen character as padding.
        inner = tokenizers.Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<pad>"))
        inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        return _finish("chars", inner, extra)

    @staticmethod
    def all_bytes(extra: Sequence[str] = ()) -> Tokenizer:
        """256 bytes and the special ids; nothing is learnt."""
        vocab = {name: i for i, name in enumerate(_byte_names())}
        inner = tokenizers.Tokenizer(models.BPE(vocab, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return _finish("bytes", inner, extra)

    @staticmethod
    def learn_bpe(texts: Sequence[str], size: int, extra: Sequence[str] = ()) -> Tokenizer:
        """Learnt from the texts, or from evenly spaced pieces of them when they exceed LEARN_FROM bytes.

        May end with fewer than `size` ids when the text has no more pairs that occur twice. Raises UserError
        for a size that is too small or too large.
        """
        smallest = SMALLEST_BPE + len(extra)
        if not smallest <= size <= LARGEST_BPE:
            raise UserError(f"vocab_size is {size}; accepted for bpe: {smallest} to {LARGEST_BPE}.")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size - len(SPECIAL) - len(extra),
            min_frequency=2,
            initial_alphabet=_byte_names(),
            show_progress=False,
        )
        inner.train_from_iterator(_sample(texts), trainer)
        return _finish("bpe", inner, extra)

    @property
    def size(self) -> int:
        return self.inner.get_vocab_size()

    @cached_property
    def _lookup(self) -> Ids:
        """chars: code point -> id, -1 where unseen."""
        table = np.full(UNICODE, -1, dtype=np.int32)
        for name, i in self.inner.get_vocab(with_added_tokens=False).items():
            if len(name) == 1:
                table[ord(name)] = i
        return table

    @property
    def nibbles(self) -> tuple[int, ...]:
        """chars: the sixteen ids of half a byte, of which characters without an id are spelled; else none."""
        return tuple(self._nibbles.tolist()) if self.kind == "chars" else ()

    @cached_property
    def _nibbles(self) -> Ids:
        return np.array([self.inner.token_to_id(n) for n in NIBBLES], dtype=np.int32)

    @cached_property
    def _names(self) -> list[str]:
        return sorted(vocab := self.inner.get_vocab(), key=vocab.__getitem__)

    def encode(self, text: str) -> list[int]:
        """Raises UserError for lone surrogates, which are no text."""
        return self.encode_many([text])[0].tolist()

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One array of int32 a text. Raises UserError for lone surrogates, which are no text."""
        if self.kind == "bytes":
            return [np.frombuffer(_utf8(t), dtype=np.uint8).astype(np.int32) for t in texts]
        if self.kind == "chars":
            return [self._encode_chars(t) for t in texts]
        return self._encode_pieces(texts)

    def _encode_chars(self, text: str) -> Ids:
        blocks = [self._encode_points(points) for points in _points(text)]
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.int32)

    def _encode_points(self, points: NDArray[np.uint32]) -> Ids:
        ids = self._lookup[points]
        unseen = np.flatnonzero(ids < 0)
        if not len(unseen):
            return ids
        parts: list[Ids] = []
        done = 0
        for place in unseen.tolist():
            raw = np.frombuffer(chr(points[place]).encode(), dtype=np.uint8)
            halves = np.stack([raw >> 4, raw & 15], 1).ravel()
            parts += [ids[done:place], self._nibbles[halves]]
            done = place + 1
        return np.concatenate([*parts, ids[done:]])

    def _encode_pieces(self, texts: Sequence[str]) -> list[Ids]:
        out: list[list[Ids]] = [[] for _ in texts]
        owners: list[int] = []
        group: list[str] = []
        waiting = 0

        def flush() -> None:
            for owner, found in zip(owners, self.inner.encode_batch_fast(group), strict=True):
                out[owner].append(np.array(found.ids, dtype=np.int32))
            owners.clear()
            group.clear()

        for owner, text in enumerate(texts):
            _utf8(text)
            for piece in _pieces(text):
                owners.append(owner)
                group.append(piece)
                waiting += len(piece)
                if waiting >= GROUP:
                    flush()
                    waiting = 0
        flush()
        empty = np.zeros(0, dtype=np.int32)
        return [np.concatenate(p) if p else empty for p in out]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; special ids say nothing, and bytes that are no UTF-8 become U+FFFD."""
        if self.kind == "bpe":
            return self.inner.decode(list(ids), skip_special_tokens=True)
        if self.kind == "bytes":
            return bytes(i for i in ids if i < 256).decode("utf-8", "replace")
        return self._decode_chars(ids)

    def _decode_chars(self, ids: Sequence[int]) -> str:
        half = {int(i): v for v, i in enumerate(self._nibbles.tolist())}
        gone = set(self.special.values())
        out: list[str] = []
        halves: list[int] = []
        for i in [*ids, -1]:
            if i in half:
                halves.append(half[i])
                continue
            if halves:
                raw = bytes(16 * a + b for a, b in zip(halves[::2], halves[1::2], strict=False))
                out.append(raw.decode("utf-8", "replace") + ("\ufffd" if len(halves) % 2 else ""))
                halves = []
            if i >= 0 and i not in gone:
                out.append(self._names[i])
        return "".join(out)

    def spelling(self) -> tuple[bytes, ...]:
        """UTF-8 of each id, (size,); b"" for special ids and for nibbles, two of which make a byte."""
        if self.kind == "bpe":
            byte = {name: value for value, name in enumerate(_byte_names())}
            marks = set(self.special.values())
            return tuple(b"" if i in marks else bytes(byte[c] for c in n) for i, n in enumerate(self._names))
        if self.kind == "bytes":
            return tuple(bytes([i]) if i < 256 else b"" for i in range(self.size))
        return tuple(n.encode() if len(n) == 1 else b"" for n in self._names)

    def save(self, path: Path) -> None:
        path.write_text(self.inner.to_str(), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Raises UserError for a file that is missing, too large, no JSON, or not one of ours."""
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes; a tokenizer has at most {LARGEST_FILE:,}.")
            raw = path.read_bytes()
            text = raw.decode("utf-8")
            kind = _kind(json.loads(text))
            inner = tokenizers.Tokenizer.from_str(text)
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"Cannot read the tokenizer {path}: {error.strerror}.") from None
        except Exception as error:  # the library raises plain Exception for a bad file
            raise UserError(
                f"{path} is not a tokenizer.json that afresh wrote ({error}). "
                "Only JSON is read, never a pickle. Train again or restore the file."
            ) from None
        return _checked(path, kind, inner)


def _finish(kind: Kind, inner: tokenizers.Tokenizer, extra: Sequence[str]) -> Tokenizer:
    """Add the special ids (at the end, but for names already there), and never read them out of a text."""
    names = [*(f"<{s}>" for s in SPECIAL), *(f"<|{s}|>" for s in extra)]
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))


def _special(inner: tokenizers.Tokenizer) -> dict[str, int]:
    """Ids by name: begin, end, pad and the extra marks."""
    added = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
    extra = {n[2:-2]: i for n, i in added.items() if n.startswith("<|") and n.endswith("|>")}
    return {s: added[f"<{s}>"] for s in SPECIAL} | extra


def _kind(saved: Mapping[str, object]) -> Kind:
    """Which kind a parsed tokenizer.json is. Raises ValueError for another."""
    model = saved.get("model")
    if not isinstance(model, dict):
        raise ValueError("it has no model")
    if model.get("type") == "WordLevel":
        return "chars"
    if model.get("type") == "BPE":
        return "bpe" if model.get("merges") else "bytes"
    raise ValueError(f"its model is {model.get('type')!r}")


def _checked(path: Path, kind: Kind, inner: tokenizers.Tokenizer) -> Tokenizer:
    vocab = inner.get_vocab(with_added_tokens=True)
    needed = [f"<{s}>" for s in SPECIAL] + (list(NIBBLES) if kind == "chars" else _byte_names())
    missing = [n for n in needed if n not in vocab]
    if missing or sorted(vocab.values()) != list(range(len(vocab))):
        why = f"it lacks {', '.join(missing[:4])}" if missing else "its ids have gaps"
        raise UserError(f"{path} is not a tokenizer.json that afresh wrote: {why}. Train again or restore the file.")
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))


def _byte_names() -> list[str]:
    """How byte-level BPE writes byte 0 ... 255: itself where printable, else from U+0100 on (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start:,}: "
            "that is half a character. Write the text as valid UTF-8."
        ) from None


def _points(text: str) -> Iterator[NDArray[np.uint32]]:
    """Code points, a block at a time. Raises UserError like `_utf8`."""
    for start in range(0, len(text), GROUP):
        try:
            yield np.frombuffer(text[start : start + GROUP].encode("utf-32-le"), dtype="<u4")
        except UnicodeEncodeError:
            _utf8(text)  # says where
            raise


def _pieces(text: str) -> Iterator[str]:
    """A long text in pieces that encode as the whole does.

    They are cut before a space or line end with a letter after it: there the library's own rule parts the text
    as well. Where no such place comes in time the cut is made anyway, which costs a token or two.
    """
    start = 0
    while len(text) - start > 2 * PIECE:
        place = CUT.search(text, start + PIECE, start + 2 * PIECE)
        end = place.start() if place else start + 2 * PIECE
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _sample(texts: Sequence[str]) -> Iterator[str]:
    """All pieces, or every n-th of them, to about LEARN_FROM characters."""
    total = sum(map(len, texts))
    every = max(1, round(total / LEARN_FROM))
    seen = 0
    for text in texts:
        for start in range(0, len(text), PIECE // 16):
            if seen % every == 0:
                yield text[start : start + PIECE // 16]
            seen += 1
