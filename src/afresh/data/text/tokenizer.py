"""Text to token ids and back without loss, by characters, bytes or byte-pair encoding.

Tokenizers are saved as tokenizer.json of the library tokenizers. Characters and bytes are encoded here with NumPy,
which is faster than the library and gives the same ids. The tokenizers of public weights are a fourth kind.
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
from tokenizers.processors import TemplateProcessing

from afresh.core import UserError
from afresh.data.text import pieces
from afresh.data.text.tokenizer_config import Sidecar, read_sidecar, read_text, write_sidecar

Kind = Literal["chars", "bytes", "bpe", "foreign"]
Ids = NDArray[np.int32]

SPECIAL = ("begin", "end", "pad")
NIBBLES = tuple(f"<0x{i:X}>" for i in range(16))  # half a byte each; they spell characters unknown in training
UNICODE = 0x110000  # number of code points
SMALLEST_BPE = 256 + len(SPECIAL) + 1
LARGEST_BPE = 1 << 17
LARGEST_FILE = 1 << 26  # bytes of a tokenizer.json


def choose(n_bytes: int, n_distinct: int) -> tuple[Kind, int | None, str]:
    """The kind, the vocabulary size (None if the kind determines it) and the reason, for a training text.

    Characters for at most 2 MB with at most 256 distinct characters. Bytes for at most 1 MB with more distinct
    characters, most of which would be too rare to learn. Otherwise byte-pair encoding with about one entry per 4 kB:
    the largest power of two up to n_bytes / 4096, within 1,024 ... 16,384.
    """
    amount = f"{n_bytes / 1e6:,.2f} MB with {n_distinct:,} distinct characters"
    if n_bytes <= 2_000_000 and n_distinct <= 256:
        return "chars", None, f"{amount}: small, so characters"
    if n_bytes <= 1_000_000:
        return "bytes", None, f"{amount}: many characters, too little text to learn each, so bytes"
    size = 1 << min(14, max(10, (n_bytes // 4096).bit_length() - 1))
    return "bpe", size, f"{amount}: enough to learn {size:,} pieces of words"


@dataclass(frozen=True)
class Tokenizer:
    """Text to ids 0 ... size - 1 and back. `special` maps the names of special tokens to ids that no text encodes to:
    `begin`, `end`, `pad`, and extra tokens such as `fim_prefix` and `im_start` (<|fim_prefix|> in the file).

    kind chars: one id per character of the training text. An unknown character becomes its UTF-8 bytes, each as two of
    sixteen nibble ids (high half first), which is lossless with 16 instead of the usual 256 additional ids. bytes: ids
    are bytes of UTF-8. bpe: byte-level byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2) with single digits.
    foreign: any file of the library, with its own normaliser and vocabulary, which may not be lossless.

    `rows` is the number of rows of the embedding if it has more than there are ids. `chat_template` is a Jinja template
    of messages, as in transformers.
    """

    kind: Kind
    inner: tokenizers.Tokenizer = field(repr=False)
    special: Mapping[str, int]
    rows: int = 0
    chat_template: str | None = field(default=None, repr=False)

    @staticmethod
    def learn_chars(texts: Iterable[str], extra: Sequence[str] = ()) -> Tokenizer:
        """A tokenizer of the characters that occur in the texts, in the order of Unicode."""
        table = np.zeros(UNICODE, dtype=bool)
        for text in texts:
            for points in pieces.code_points(text):
                table[points] = True
        characters = [chr(p) for p in np.flatnonzero(table).tolist()]
        names = [*characters, *NIBBLES, *(f"<{s}>" for s in SPECIAL)]
        # Programs that use only the library encode an unknown character as padding.
        inner = tokenizers.Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, unk_token="<pad>"))
        inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        return _finish("chars", inner, extra)

    @staticmethod
    def all_bytes(extra: Sequence[str] = ()) -> Tokenizer:
        """A tokenizer of the 256 bytes and the special tokens."""
        vocab = {name: i for i, name in enumerate(pieces.byte_names())}
        inner = tokenizers.Tokenizer(models.BPE(vocab, []))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return _finish("bytes", inner, extra)

    @staticmethod
    def learn_bpe(texts: Sequence[str], size: int, extra: Sequence[str] = ()) -> Tokenizer:
        """A byte-pair encoding learnt from the texts, or from evenly spaced pieces of texts with more than
        pieces.LEARN_FROM characters.

        It has fewer than `size` ids if the texts have no more pairs that occur twice. Raises UserError if the size is
        too small or too large.
        """
        smallest = SMALLEST_BPE + len(extra)
        if not smallest <= size <= LARGEST_BPE:
            raise UserError(f"`data.vocab_size={size}`: byte-pair encoding accepts {smallest} to {LARGEST_BPE}.")
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
        """From the content of a tokenizer.json and its tokens for begin, end and pad.

        `begin` and `pad` default to `end`. Every added token <|name|> is a special token `name`. Raises UserError if
        the library cannot read the content, or if a token is not one of the added tokens.
        """
        try:
            saved = json.loads(text)
            for token in saved.get("added_tokens", ()):
                name = token["content"]
                token["special"] = token["special"] or _is_mark(name) or name in (begin, end, pad)
            inner = tokenizers.Tokenizer.from_str(json.dumps(saved))
        except Exception as error:  # the library raises Exception itself for an invalid file
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
        """For chars: code point -> id, -1 if unknown."""
        table = np.full(UNICODE, -1, dtype=np.int32)
        for name, i in self.inner.get_vocab(with_added_tokens=False).items():
            if len(name) == 1:
                table[ord(name)] = i
        return table

    @property
    def nibbles(self) -> tuple[int, ...]:
        """For chars: the sixteen ids of half a byte, which spell unknown characters. Empty for other kinds."""
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
        """The id that the library adds before every text by default, or None. `encode` does not add it. tokenizer.json
        alone says so, as in transformers, which ignores add_bos_token of tokenizer_config.json beside it."""
        plain, added = (self.inner.encode("a", add_special_tokens=a).ids for a in (False, True))
        return added[0] if len(added) > len(plain) and added[:1] != plain[:1] and added[0] < self.size else None

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises UserError for lone surrogates, which are not valid text."""
        return self.encode_many([text])[0].tolist()

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text as an int32 array. Raises UserError for lone surrogates, which are not valid text."""
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
        unknown = np.flatnonzero(ids < 0)
        if not len(unknown):
            return ids
        parts: list[Ids] = []
        done = 0
        for position in unknown.tolist():
            raw = np.frombuffer(chr(points[position]).encode(), dtype=np.uint8)
            nibbles = np.stack([raw >> 4, raw & 15], 1).ravel()
            parts += [ids[done:position], self._nibbles[nibbles]]
            done = position + 1
        return np.concatenate([*parts, ids[done:]])

    def _encode_pieces(self, texts: Sequence[str]) -> list[Ids]:
        out: list[list[Ids]] = [[] for _ in texts]
        owners: list[int] = []
        group: list[str] = []
        characters = 0

        def flush() -> None:
            encodings = self.inner.encode_batch_fast(group, add_special_tokens=False)
            for owner, encoding in zip(owners, encodings, strict=True):
                out[owner].append(np.array(encoding.ids, dtype=np.int32))
            owners.clear()
            group.clear()

        for owner, text in enumerate(texts):
            pieces.utf8(text)
            # Foreign tokenizers may have rules that need more context than a piece.
            for piece in (text,) if self.kind == "foreign" else pieces.cut(text):
                owners.append(owner)
                group.append(piece)
                characters += len(piece)
                if characters >= pieces.GROUP:
                    flush()
                    characters = 0
        flush()
        joined: list[Ids] = []
        for parts in out:
            joined.append(np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32))
            parts.clear()  # what is copied is not held twice
        return joined

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. Special tokens are skipped, and bytes that are not UTF-8 become U+FFFD."""
        if self.kind in ("bpe", "foreign"):
            return self.inner.decode(list(ids), skip_special_tokens=True)
        if self.kind == "bytes":
            return bytes(i for i in ids if i < 256).decode("utf-8", "replace")
        return self._decode_chars(ids)

    def _decode_chars(self, ids: Sequence[int]) -> str:
        value = {int(i): v for v, i in enumerate(self._nibbles.tolist())}
        special = set(self.special.values())
        out: list[str] = []
        nibbles: list[int] = []
        for i in [*ids, -1]:
            if i in value:
                nibbles.append(value[i])
                continue
            if nibbles:
                raw = bytes(16 * a + b for a, b in zip(nibbles[::2], nibbles[1::2], strict=False))
                out.append(raw.decode("utf-8", "replace") + ("\ufffd" if len(nibbles) % 2 else ""))
                nibbles = []
            if i >= 0 and i not in special:
                out.append(self._names[i])
        return "".join(out)

    def spelling(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes of each id, (size,); b"" for special tokens and for nibbles, two of which make a byte."""
        if self.kind == "bytes":
            return tuple(bytes([i]) if i < 256 else b"" for i in range(self.size))
        if self.kind == "chars":
            return tuple(n.encode() if len(n) == 1 else b"" for n in self._names)
        added = {i: b"" if t.special else t.content.encode() for i, t in self.inner.get_added_tokens_decoder().items()}
        return tuple(added[i] if i in added else pieces.spell(n, self._by_byte) for i, n in enumerate(self._names))

    @cached_property
    def longest(self) -> int:
        """The most bytes, and so the most characters, that one token spells."""
        return max(1, *map(len, self.spelling()))

    @cached_property
    def _by_byte(self) -> bool:
        """Whether names are written in GPT-2's byte alphabet, as opposed to SentencePiece's."""
        return '"ByteLevel"' in json.dumps(json.loads(self.inner.to_str())["decoder"])

    def save(self, path: Path) -> None:
        """Write the library's file and, if there is more to save than it can hold, tokenizer_config.json next to it."""
        path.write_text(self.inner.to_str(), encoding="utf-8")
        if self.kind == "foreign" or self.rows or self.chat_template is not None:
            write_sidecar(path, self.sidecar)

    @property
    def sidecar(self) -> Sidecar:
        """The content of tokenizer_config.json."""
        begin, end, pad = (str(self.inner.id_to_token(self.special[s])) for s in SPECIAL)
        return Sidecar(self.kind, begin, end, pad, self.rows, self.chat_template)

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Load a tokenizer written by `save`. Raises UserError if the file is missing, too large, or not from this
        package."""
        try:
            text = read_text(path, LARGEST_FILE)
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
        """From the content of a tokenizer.json of this package. Raises UserError, naming `where`, if it is not one."""
        try:
            kind = _kind(json.loads(text))
            inner = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises Exception itself for an invalid file
            raise UserError(
                f"{where} is not a tokenizer.json that afresh wrote ({error}). "
                "Only JSON is read, never a pickle. Train again or restore the file."
            ) from None
        return replace(_checked(where, kind, inner), rows=rows, chat_template=chat_template)

    def with_rows(self, rows: int, where: str) -> Tokenizer:
        """The tokenizer for an embedding with `rows` rows. Raises UserError, naming `where`, if an id has no row."""
        used = 1 + max(self.inner.get_vocab().values())
        if used > rows:
            raise UserError(
                f"The tokenizer of {where} has ids up to {used - 1:,}, but its embedding has {rows:,} rows: they do "
                "not belong together."
            )
        return replace(self, rows=rows if rows > used else 0)


def _finish(kind: Kind, inner: tokenizers.Tokenizer, extra: Sequence[str]) -> Tokenizer:
    """Add the special tokens (with new ids at the end unless they exist), which are never recognised in texts."""
    names = [*(f"<{s}>" for s in SPECIAL), *(f"<|{s}|>" for s in extra)]
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))


def put_before(inner: tokenizers.Tokenizer, first: int) -> None:
    """Let the library add a token before every text."""
    name = inner.id_to_token(first)
    inner.post_processor = TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B:1", special_tokens=[(name, first)]
    )


def _is_mark(name: str) -> bool:
    return len(name) > 4 and name.startswith("<|") and name.endswith("|>")


def _special(inner: tokenizers.Tokenizer, named: Mapping[str, str] | None = None) -> dict[str, int]:
    """Ids by name of begin, end and pad, whose tokens are `named` or as this package writes them, and of other special
    tokens. Raises UserError if one is missing."""
    added = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
    named = named or {s: f"<{s}>" for s in SPECIAL}
    missing = [f"{s} ({n})" for s, n in named.items() if n not in added]
    if missing:
        raise UserError(f"The tokenizer has no added token for {', '.join(missing)}. It has: {_few(sorted(added))}.")
    return {n[2:-2]: i for n, i in added.items() if _is_mark(n)} | {s: added[n] for s, n in named.items()}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "") if names else "none"


def _kind(saved: Mapping[str, object]) -> Kind:
    """The kind of a parsed tokenizer.json. Raises ValueError if it is of none."""
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
        problem = f"it lacks {', '.join(missing[:4])}" if missing else "its ids have gaps"
        raise UserError(
            f"{path} is not a tokenizer.json that afresh wrote: {problem}. Train again or restore the file."
        )
    inner.encode_special_tokens = True
    return Tokenizer(kind, inner, _special(inner))
