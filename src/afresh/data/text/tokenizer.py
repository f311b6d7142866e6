"""Text to integers and back, without loss, in three sizes of alphabet: characters, bytes, pieces of words.

Saved as a `tokenizer.json` of the `tokenizers` library. Characters and bytes are encoded here with NumPy, which
is faster than the library; the ids are the library's. The tokenizers of public weights are a fourth kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from afresh.core import UserError
from afresh.data.text import pieces
from afresh.data.text.tokenizer_config import Sidecar, read_sidecar, write_sidecar

Kind = Literal["chars", "bytes", "bpe", "foreign"]
Ids = NDArray[np.int32]

SPECIAL = ("begin", "end", "pad")
NIBBLES = tuple(f"<0x{i:X}>" for i in range(16))  # half a byte each, of characters never seen in training
UNICODE = 0x110000
SMALLEST_BPE = 256 + len(SPECIAL) + 1
LARGEST_BPE = 1 << 17
LARGEST_FILE = 1 << 26  # bytes of a tokenizer.json


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
    UTF-8. bpe: byte-level pieces (Sennrich et al. 2016; bytes as in GPT-2), every digit on its own. foreign: any
    file of the library, with its own normaliser and pieces; as lossless as its makers made it.

    `rows` is the number of rows of the embedding where weights came with more than there are ids in use.
    `chat_template` is a Jinja template of messages, as transformers has it.
    """

    kind: Kind
    inner: tokenizers.Tokenizer = field(repr=False)
    special: Mapping[str, int]
    rows: int = 0
    chat_template: str | None = field(default=None, repr=False)

    @staticmethod
    def learn_chars(texts: Iterable[str], extra: Sequence[str] = ()) -> Tokenizer:
        """Of the characters that occur, in the order of Unicode."""
        table = np.zeros(UNICODE, dtype=bool)
        for text in texts:
            for points in pieces.code_points(text):
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
        vocab = {name: i for i, name in enumerate(pieces.byte_names())}
        inner = tokenizers.Tokenizer(models.BPE(vocab, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return _finish("bytes", inner, extra)

    @staticmethod
    def learn_bpe(texts: Sequence[str], size: int, extra: Sequence[str] = ()) -> Tokenizer:
        """Learnt from the texts, or from evenly spaced pieces of them when they exceed pieces.LEARN_FROM bytes.

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
            initial_alphabet=pieces.byte_names(),
            show_progress=False,
        )
        inner.train_from_iterator(pieces.sample(texts), trainer)
        return _finish("bpe", inner, extra)

    @staticmethod
    def foreign(
        text: str, begin: str | None, end: str, pad: str | None, rows: int = 0, chat_template: str | None = None
    ) -> Tokenizer:
        """From the text of a tokenizer.json and the tokens that stand for begin, end and pad.

        Without `begin` or `pad` that is `end`. Every added token <|name|> is a mark `name`. Raises UserError when the
        library cannot read the text, or a token is none of those added to it.
        """
        try:
            saved = json.loads(text)
            for token in saved.get("added_tokens", ()):
                name = token["content"]
                token["special"] = token["special"] or _is_mark(name) or name in (begin, end, pad)
            inner = tokenizers.Tokenizer.from_str(json.dumps(saved))
        except Exception as error:  # the library raises plain Exception for a bad file
            raise UserError(f"This is not a tokenizer.json that the library tokenizers can read: {error}.") from None
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        named = {"begin": begin or end, "end": end, "pad": pad or end}
        return Tokenizer("foreign", inner, _special(inner, named), rows, chat_template)

    @cached_property
    def size(self) -> int:
        return max(self.rows, 1 + max(self.inner.get_vocab().values()))

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
        names = [""] * self.size
        for name, i in self.inner.get_vocab().items():
            names[i] = name
        return names

    @cached_property
    def opening(self) -> int | None:
        """The id that the library's file puts before a text of itself, where its makers chose so; nothing here asks
        for it."""
        plain, added = (self.inner.encode("a", add_special_tokens=a).ids for a in (False, True))
        return added[0] if len(added) > len(plain) and added[0] != plain[0] else None

    def encode(self, text: str) -> list[int]:
        """Raises UserError for lone surrogates, which are no text."""
        return self.encode_many([text])[0].tolist()

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One array of int32 a text. Raises UserError for lone surrogates, which are no text."""
        if self.kind == "bytes":
            return [np.frombuffer(pieces.utf8(t), dtype=np.uint8).astype(np.int32) for t in texts]
        if self.kind == "chars":
            return [self._encode_chars(t) for t in texts]
        return self._encode_pieces(texts)

    def _encode_chars(self, text: str) -> Ids:
        blocks = [self._encode_points(points) for points in pieces.code_points(text)]
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
            encoded = self.inner.encode_batch_fast(group, add_special_tokens=False)
            for owner, found in zip(owners, encoded, strict=True):
                out[owner].append(np.array(found.ids, dtype=np.int32))
            owners.clear()
            group.clear()

        for owner, text in enumerate(texts):
            pieces.utf8(text)
            for piece in (text,) if self.kind == "foreign" else pieces.cut(text):  # its own rules may look further
                owners.append(owner)
                group.append(piece)
                waiting += len(piece)
                if waiting >= pieces.GROUP:
                    flush()
                    waiting = 0
        flush()
        empty = np.zeros(0, dtype=np.int32)
        return [np.concatenate(p) if p else empty for p in out]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; special ids say nothing, and bytes that are no UTF-8 become U+FFFD."""
        if self.kind in ("bpe", "foreign"):
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
        if self.kind == "bytes":
            return tuple(bytes([i]) if i < 256 else b"" for i in range(self.size))
        if self.kind == "chars":
            return tuple(n.encode() if len(n) == 1 else b"" for n in self._names)
        added = {i: b"" if t.special else t.content.encode() for i, t in self.inner.get_added_tokens_decoder().items()}
        return tuple(added[i] if i in added else pieces.spell(n, self._by_byte) for i, n in enumerate(self._names))

    @cached_property
    def _by_byte(self) -> bool:
        """Whether names are spelt in GPT-2's alphabet of bytes; else in that of SentencePiece."""
        return '"ByteLevel"' in json.dumps(json.loads(self.inner.to_str())["decoder"])

    def save(self, path: Path) -> None:
        """The library's file, and beside it tokenizer_config.json, for whatever that file does not say."""
        path.write_text(self.inner.to_str(), encoding="utf-8")
        if self.kind == "foreign" or self.rows or self.chat_template is not None:
            write_sidecar(path, self.sidecar)

    @property
    def sidecar(self) -> Sidecar:
        """What tokenizer_config.json holds."""
        begin, end, pad = (str(self.inner.id_to_token(self.special[s])) for s in SPECIAL)
        return Sidecar(self.kind, begin, end, pad, self.rows, self.chat_template)

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """What `save` wrote. Raises UserError for a file that is missing, too large, no JSON, or not one of ours."""
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes; a tokenizer has at most {LARGEST_FILE:,}.")
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise UserError(f"Cannot read the tokenizer {path}: {error.strerror}.") from None
        side = read_sidecar(path)
        if side is None:
            return Tokenizer.read(text, str(path))
        if side.kind == "foreign":
            return Tokenizer.foreign(text, side.begin, side.end, side.pad, side.rows, side.chat_template)
        return Tokenizer.read(text, str(path), side.rows, side.chat_template)

    @staticmethod
    def read(text: str, where: str, rows: int = 0, chat_template: str | None = None) -> Tokenizer:
        """One of ours from the text of its tokenizer.json. Raises UserError, naming `where`, for what is none."""
        try:
            kind = _kind(json.loads(text))
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises plain Exception for a bad file
            raise UserError(
                f"{where} is not a tokenizer.json that afresh wrote ({error}). "
                "Only JSON is read, never a pickle. Train again or restore the file."
            ) from None
        return replace(_checked(where, kind, inner), rows=rows, chat_template=chat_template)

    def with_rows(self, rows: int, where: str) -> Tokenizer:
        """The same for an embedding of `rows` rows. Raises UserError, naming `where`, when an id has no row."""
        used = 1 + max(self.inner.get_vocab().values())
        if used > rows:
            raise UserError(
                f"The tokenizer of {where} has ids up to {used - 1:,}, but its embedding has {rows:,} rows: they do "
                "not belong together."
            )
        return replace(self, rows=rows if rows > used else 0)


def _finish(kind: Kind, inner: tokenizers.Tokenizer, extra: Sequence[str]) -> Tokenizer:
    """Add the special ids (at the end, but for names already there), and never read them out of a text."""
    names = [*(f"<{s}>" for s in SPECIAL), *(f"<|{s}|>" for s in extra)]
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))


def _is_mark(name: str) -> bool:
    return len(name) > 4 and name.startswith("<|") and name.endswith("|>")


def _special(inner: tokenizers.Tokenizer, named: Mapping[str, str] | None = None) -> dict[str, int]:
    """Ids by name: begin, end, pad (`named`, or as we write them) and the marks. Raises UserError for one missing."""
    added = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
    named = named or {s: f"<{s}>" for s in SPECIAL}
    missing = [f"{s} ({n})" for s, n in named.items() if n not in added]
    if missing:
        raise UserError(f"The tokenizer has no added token for {', '.join(missing)}. It has: {_few(sorted(added))}.")
    return {n[2:-2]: i for n, i in added.items() if _is_mark(n)} | {s: added[n] for s, n in named.items()}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "") if names else "none"


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


def _checked(path: str, kind: Kind, inner: tokenizers.Tokenizer) -> Tokenizer:
    vocab = inner.get_vocab(with_added_tokens=True)
    needed = [f"<{s}>" for s in SPECIAL] + (list(NIBBLES) if kind == "chars" else pieces.byte_names())
    missing = [n for n in needed if n not in vocab]
    if missing or sorted(vocab.values()) != list(range(len(vocab))):
        why = f"it lacks {', '.join(missing[:4])}" if missing else "its ids have gaps"
        raise UserError(f"{path} is not a tokenizer.json that afresh wrote: {why}. Train again or restore the file.")
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))
