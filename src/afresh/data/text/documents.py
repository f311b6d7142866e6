"""Documents (texts or source files) to one stream of token ids and back. Shared by the modalities text and code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from afresh.core import Abilities, CondSpec, Encoder, Examples, Item, Omission, Space, UserError
from afresh.core.memory import available_memory
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.conditions import encode_conditions, fit_conditions
from afresh.data.encoder_file import Beside, FileEncoder, load_encoder
from afresh.data.split import share
from afresh.data.text.chat import BEGUN, CHATML, MARKS, ChatTemplate
from afresh.data.text.encodings import is_encoding
from afresh.data.text.fim import FillIn, supports_fim
from afresh.data.text.kind import TEXT
from afresh.data.text.prompts import TextPrompts
from afresh.data.text.tokenizer import Ids, Tokenizer, choose

MAX_CLASSES = 1_000
# Bytes of memory for every byte of text: while it is read, and while it is encoded (docs/development/log.md).
READING, LEARNING = 3.5, 3.5
NO_IDS: Ids = np.zeros(0, dtype=np.int32)


class DocumentOptions(BaseModel):
    """How documents are encoded, and how much of them is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: Literal["auto", "chars", "bytes", "bpe"] = Field(
        "auto", description="characters, bytes or byte-pair encoding; auto: chosen by the amount of text"
    )
    vocab_size: int | None = Field(
        None, ge=1, description="size of the vocabulary of bpe; None: chosen by the amount of text"
    )
    context: int = Field(256, ge=2, le=1 << 20, description="tokens of a window")
    exclude: tuple[str, ...] = Field(
        (), description='patterns of relative names of files to leave out, such as "tests/*" or "*_test.py"'
    )
    max_bytes: int | None = Field(
        None, ge=1, description="limit for all documents together; documents are chosen by a hash of their content"
    )
    max_file_mb: int = Field(512, ge=1, description="larger files are refused")
    encoding: str | None = Field(
        None, description="of all files, such as cp1252; None: UTF-8, or guessed for files that are not UTF-8"
    )

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and not is_encoding(value):
            raise ValueError(f"no encoding is named {value!r}; known are utf-8, cp1252, cp1251, shift_jis and others")
        return value

    @model_validator(mode="after")
    def _size_needs_bpe(self) -> DocumentOptions:
        if self.vocab_size is not None and self.tokenizer in ("chars", "bytes"):
            raise ValueError(f"vocab_size requires the tokenizer bpe; the size of {self.tokenizer} is fixed")
        return self


def not_blank(value: str) -> bool:
    """Whether the text contains anything but white space."""
    return bool(value.strip())


@dataclass(frozen=True, kw_only=True)
class DocumentEncoder(FileEncoder):
    """Documents to a stream of token ids and back. `check` decides whether a decoded document is valid.

    With `records`, the documents are conversations, rendered by the tokenizer's chat template, whose answers are
    learnt. `begins`: whether documents begin with the token that the tokenizer puts before every text, as in public
    models; without, with the `end` of the document before. `notes` report which tokenizer was chosen and why, and what
    fitting left out.
    """

    format: Literal["afresh.documents"] = "afresh.documents"
    version: Literal[1] = 1
    tokenizer: Beside[Tokenizer]
    check: Annotated[Callable[[str], bool], Field(exclude=True)] = not_blank
    context: Annotated[int, Field(ge=2, le=MOST_TOKENS)]
    conds: CondSpec
    suffix: str = ".txt"
    languages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    records: bool = False
    # The share of the documents in a training window that are rearranged (afresh.data.text.fim).
    fim_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    begins: bool = False
    later = ("begins",)
    settled: ClassVar[Mapping[str, Any]] = {}  # reading texts does not depend on the data
    kind = TEXT
    low_rank = True

    @cached_property
    def template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    @cached_property
    def space(self) -> Space:
        """The space of the stream. For records, `end` is the id that ends an answer."""
        t, special = self.tokenizer, dict(self.tokenizer.special)
        if self.records:
            special = {k: v for k, v in special.items() if v != self.template.stop} | {"end": self.template.stop}
        opening = t.opening if self.begins else None
        return Space("tokens", (self.context,), (t.size,), special, True, records=self.records, opening=opening)

    @property
    def abilities(self) -> Abilities:
        return Abilities(prompts=TextPrompts(self), texts=self, tunable=self)

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32, each document followed by `end`; for conversations also the mask of their answers.

        Documents with equal conditions are adjacent, in the order of their classes, because windows are taken from runs
        of equal condition. Otherwise the order of `items` is kept. Raises UserError for a label that does not occur in
        training, and for conversations if the encoder was fitted to texts.
        """
        cond = encode_conditions(items, self.conds)
        order = _by_condition(cond.parts, cond.present, len(items))
        ordered = [items[i] for i in order]
        turns = any(i.turns for i in items)
        encoded, mask = self.conversations(ordered) if turns else (self.texts(ordered), None)
        ends = 0 if turns else 1
        bounds = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(e) + ends for e in encoded], out=bounds[1:])
        x = np.full(bounds[-1], self.tokenizer.special["end"], dtype=np.int32)
        for i, (start, stop) in enumerate(pairwise(bounds.tolist())):
            x[start : stop - ends] = encoded[i]
            encoded[i] = NO_IDS  # what is copied is not held twice
        return Examples(
            torch.from_numpy(x),
            cond.select(torch.tensor(order, dtype=torch.int64)),
            bounds=torch.from_numpy(bounds),
            bytes=sum(utf8_size(t) for i in items for t in i.targets()),
            mask=None if mask is None else torch.from_numpy(mask),
            vary=FillIn(self.tokenizer, self.fim_rate) if self.fim_rate else None,
        )

    def texts(self, items: Sequence[Item]) -> list[Ids]:
        """The ids of each document."""
        return self.tokenizer.encode_many([i.value for i in items])

    def conversations(self, items: Sequence[Item]) -> tuple[list[Ids], NDArray[np.bool_]]:
        """The ids of each conversation, and the mask of targets of all of them together."""
        text = next((i for i in items if not i.turns), None)
        if text is not None or not self.records:
            raise UserError(
                "This model continues texts, but the data are conversations. Tune it on them: `afresh.tune(RUN, PATH)`."
                if text is None
                else f"Conversations and texts cannot be learnt together: {text.source} is a text. Give one kind."
            )
        encoded = self.template.encode([i.turns for i in items], [i.source for i in items])
        return [ids for ids, _ in encoded], np.concatenate([targets for _, targets in encoded])

    def decode(self, x: Tensor) -> list[str]:
        """Ids (B, T), or one row (T,), to texts, each up to its first `end`."""
        end = self.space.special["end"]
        out = []
        for row in (x[None] if x.dim() == 1 else x).tolist():  # rows may be empty
            out.append(self.tokenizer.decode(row[: row.index(end)] if end in row else row))
        return out

    def prompt(self, text: str) -> Tensor:
        """Ids (length,) int64 of the beginning of a document, to be continued. Raises UserError for lone surrogates."""
        return torch.tensor(self.tokenizer.encode(text), dtype=torch.int64)

    def encoder_for(self, items: Sequence[Item], options: DocumentOptions, context: int) -> DocumentEncoder:
        """The encoder with the same tokenizer for conversations, in its chat template, or for plain texts. Raises
        UserError for a `fim_rate` that is not possible."""
        talks = any(i.turns for i in items)
        notes, tokenizer = [], self.tokenizer
        if talks:
            plain = tokenizer.chat_template is None
            how = "as User: and Assistant:" if plain else "by the base's chat template"
            notes.append(f"conversations are written {how}")
            if plain and self.begins and tokenizer.opening != tokenizer.special["end"]:
                tokenizer = replace(tokenizer, chat_template=BEGUN)
            notes += ChatTemplate(tokenizer).notes()
        unused = sorted({k for i in items for k in i.labels} - set(self.conds))
        if unused:
            notes.append(Omission(f"{', '.join(unused)} is not learnt, because the base has no such condition"))
        if "context" in options.model_fields_set and options.context > context:
            longer = f"windows of {options.context:,} tokens are longer than the base's context of {context:,} tokens"
            notes.append(longer)
            context = options.context
        languages = tuple(sorted({i.labels["language"] for i in items if "language" in i.labels}))
        rate = self.fim_rate_for(options, talks)
        base = replace(self, tokenizer=tokenizer, context=context, languages=languages)
        return replace(base, records=talks, fim_rate=rate, notes=tuple(notes))

    def fim_rate_for(self, options: DocumentOptions, talks: bool) -> float:
        """The share of texts to learn as fill-in-the-middle: set by hand, or as the base learnt; 0 for conversations.

        Raises UserError if it is set by hand and not possible.
        """
        by_hand = options.model_dump()["fim_rate"] if "fim_rate" in options.model_fields_set else None
        if by_hand and (talks or not supports_fim(self.tokenizer.special)):
            why = "conversations stay in their order" if talks else "the base's tokenizer has no tokens for it"
            raise UserError(f"`data.fim_rate={by_hand:g}` is not possible: {why}. Leave it out.")
        if talks:
            return 0.0
        return self.fim_rate if by_hand is None else float(by_hand)

    def first_rows(self, base: Encoder) -> list[list[int]]:
        """The vocabulary does not grow."""
        return [[i] for i in range(self.space.vocab[0])]

    def valid(self, value: Any) -> bool:
        """Whether the value is a text without replacement characters that passes `check`."""
        return isinstance(value, str) and "\ufffd" not in value and self.check(value)

    def content(self, value: Any, name: str) -> bytes:
        text: str = value
        return text.encode("utf-8")

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and encoder.json."""
        super().save(folder)
        self.tokenizer.save(folder / "tokenizer.json")


class Room:
    """The memory that is free before texts are read."""

    def __init__(self, options: DocumentOptions) -> None:
        self.free, self.most = available_memory(), options.max_bytes

    def needed(self, size: int) -> float:
        """Bytes of memory to read and learn texts of `size` bytes."""
        return READING * size + LEARNING * (size if self.most is None else min(size, self.most))

    def holds(self, size: int) -> bool:
        """Whether the memory is enough for texts of `size` bytes."""
        return self.free is None or self.needed(size) <= self.free

    def check(self, size: int) -> None:
        """Raise UserError if reading and learning texts of `size` bytes needs more memory than is free."""
        if not self.holds(size):
            assert self.free is not None
            raise UserError(
                f"The texts have {size / 1e9:,.2g} GB and need about {self.needed(size) / 1e9:,.2g} GB of memory, and "
                f"{self.free / 1e9:,.2g} GB are free. Give a part of them, or learn only a sample "
                f"(`data.max_bytes={int(self.free / (READING + LEARNING)):d}`)."
            )


def fit_documents(
    items: Sequence[Item], options: DocumentOptions, marks: tuple[str, ...] = (), named: Tokenizer | None = None
) -> tuple[Tokenizer, CondSpec, tuple[str, ...]]:
    """The tokenizer (with special tokens `marks`, or the one that the user named) and conditions of the training
    documents, and notes on both.

    Raises UserError without a text, and for a label with more than MAX_CLASSES classes.
    """
    texts: list[str] = [i.value for i in items]
    n_bytes = sum(map(utf8_size, texts))
    if not n_bytes:
        raise UserError("No text to train on: the training split is empty.")
    spec, notes = fit_conditions(items)
    for name, part in spec.items():
        if len(part.classes) > MAX_CLASSES and part.kind == "label":
            raise UserError(
                f"{name} has {len(part.classes):,} different values in {len(items):,} documents, but at most "
                f"{MAX_CLASSES:,} classes can be learnt. Choose another `data.label_column`, or none."
            )
    if named is not None:
        return named, spec, (f"tokenizer named by the user, {named.size:,} ids", *notes)
    distinct = len(set().union(*map(set, texts)))
    kind, size, reason = choose(n_bytes, distinct)
    if options.tokenizer != "auto" or options.vocab_size is not None:
        kind = "bpe" if options.tokenizer == "auto" else options.tokenizer
        reason = "set by the user"
    chat = any(i.turns for i in items)
    extra = MARKS if chat else marks
    if kind == "chars":
        tokenizer = Tokenizer.learn_chars(texts, extra)
    elif kind == "bytes":
        tokenizer = Tokenizer.all_bytes(extra)
    else:
        tokenizer = Tokenizer.learn_bpe(texts, options.vocab_size or size or 1024, extra)
    if chat:
        tokenizer = replace(tokenizer, chat_template=CHATML)
    notes = [f"tokenizer {kind}, {tokenizer.size:,} ids ({reason})", *notes]
    return tokenizer, spec, tuple(notes)


def load_documents(folder: Path) -> DocumentEncoder:
    """Raises UserError if a file is missing, damaged, of another version, or has unknown fields."""
    beside = {"tokenizer": Tokenizer.load(folder / "tokenizer.json")}
    return load_encoder(folder, DocumentEncoder, "documents", beside)


def limit_bytes(items: Sequence[Item], max_bytes: int | None) -> tuple[list[Item], list[str]]:
    """Items whose texts have at most `max_bytes` together, chosen by a hash of their content, in the same order."""
    sizes = [utf8_size(i.value) for i in items]
    if max_bytes is None or sum(sizes) <= max_bytes:
        return list(items), []
    chosen: set[int] = set()
    left = max_bytes
    for i in sorted(range(len(items)), key=lambda i: share(TEXT.digest(items[i].value), "cap")):
        if sizes[i] <= left:
            chosen.add(i)
            left -= sizes[i]
    if not chosen:
        raise UserError(f"`data.max_bytes` is {max_bytes:,}, but the smallest document has {min(sizes):,} bytes.")
    note = Omission(
        f"max_bytes {max_bytes:,}: {len(items) - len(chosen):,} of {len(items):,} documents left out, chosen by a hash "
        f"of their content ({sum(sizes) - max_bytes + left:,} of {sum(sizes):,} bytes)"
    )
    return [item for i, item in enumerate(items) if i in chosen], [note]


def utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _by_condition(parts: dict[str, Tensor] | Any, present: Any, count: int) -> list[int]:
    """An order of rows in which equal conditions are adjacent; stable."""
    if not parts:
        return list(range(count))
    columns = []
    for name in parts:
        columns += [present[name].tolist(), parts[name].tolist()]
    keys = list(zip(*columns, strict=True))
    return sorted(range(count), key=lambda i: keys[i])
