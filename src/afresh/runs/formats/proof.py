"""Proof of an export: the file, read again by another program, gives the same log-probabilities and the same ids.

Log-probabilities are compared twice. `layout`: the network of afresh with the numbers of the file against the reader,
both in float32, over the whole vocabulary; a wrong layout shows here, and rounding does not. `rounding`: the model
before the export against the reader on the file, at the tokens of the text; this is what the precision costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.load import load_base
from afresh.runs.formats.parts import Precision
from afresh.runs.formats.readers import Messages, Reader, Said, said_in

ExplainDifference = Callable[[Tokenizer, str], str | None]  # why a text may have other ids; None: it must not

LAYOUT = 1e-3  # nats
# Nats at the least likely token, where rounding shows most. Another model would differ by more.
ROUNDING: dict[Precision, float] = {"float32": 1e-3, "float16": 0.25, "bfloat16": 1.0, "q8_0": 2.0}
WINDOW = 256  # at most so many tokens of a text are compared
FIXED = (
    "The quick brown fox jumps over the lazy dog. In 1789, 12 of 345 ships were lost; the others came home.\n\n"
    "def area(r):\n    return 3.14159 * r ** 2  # circle\n"
)
STRINGS = (
    "",
    " ",
    "Hello, world!",
    "don't you'll WE'VE it's",
    "1234567890 3.14159 1e-5 0x1F 1,000,000",
    "   three spaces,\ttab,\n\nblank line\r\nCR LF   \n",
    "def f(x):\n\tif x:\n\t\treturn [x**2, {'a': None}]\n",
    "naïve café Ünïcödé e\u0301 ﬁ ß İı",
    "中文字 日本語 한국어 العربية עברית हिन्दी ไทย",
    "👩‍👩‍👧‍👦 🇫🇷 ✓ → ∑ € ½ ²",
    "\u00a0\u2028\ufeff\u200b|",
    "<end><begin><pad><0x0A></s><unk>",
    "https://example.org/a?b=c&d=%20#e",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 4,
)
CHATS: tuple[Messages, ...] = (
    ({"role": "user", "content": "What is 2 + 2?"},),
    (
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "And in French?\n\n  naïve"},
    ),
)


@dataclass(frozen=True)
class TextFormat:
    """A format for language models.

    `write` fills a folder and returns notes; `path` is what is read again, relative to the folder; `open` starts a
    reader on it for texts of at most so many tokens; `package` is what to install for an independent reader. `explain`
    gives the reason why the format cannot give a text the same ids, or None. `prepare` makes the model that the format
    can hold. `library` is the program that opens it, as the hub names it.
    """

    write: Callable[[Base, Path, Precision], Sequence[str]]
    path: str
    open: Callable[[Path, int], Reader]
    package: str | None = None
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    explain: ExplainDifference = lambda t, text: None
    prepare: Callable[[Base], Base] = lambda base: base
    library: str = "afresh"


class Difference(BaseModel):
    """The largest difference of log-probabilities in nats, and the largest that is accepted."""

    model_config = ConfigDict(frozen=True)
    largest: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance  # false for NaN


class Strings(BaseModel):
    """Texts that both tokenizers encoded: how many to the same ids, and those that differ, with or without a known
    reason."""

    model_config = ConfigDict(frozen=True)
    texts: int
    same: int
    expected: list[str]
    unexpected: list[str]
    reason: str | None


class Proof(BaseModel):
    """proof.json of a language model."""

    model_config = ConfigDict(frozen=True)
    passed: bool
    format: str
    precision: str
    reader: str
    independent: bool  # another program has read the file
    text: str
    tokens: int
    layout: Difference
    rounding: Difference
    nats_per_token: dict[str, float]
    tokenizer: Strings
    chat: dict[str, Any] | None
    first_token: dict[str, Any]
    condition: str | None
    notes: list[str]


def prove(
    base: Base, folder: Path, target: TextFormat, precision: Precision, rows: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The measured fields of a `Proof` of what `target` wrote into `folder`. `rows`: ids of texts, each with its first
    token. A reader that rounds what it multiplies is given a copy in float32 as well, for `layout`."""
    rows = [list(r[: min(WINDOW, base.context)]) for r in rows]
    if base.config.apart:  # other programs let a document attend to the one before it
        rows = [part for r in rows for part in documents(r, base.tokenizer.special["end"])]
    longest = max(map(len, rows))
    before = log_probabilities(base, rows)
    reader = target.open(folder / target.path, longest)
    read = [reader.log_probabilities(r) for r in rows]
    stored_base = load_base(folder / target.path)
    stored = log_probabilities(stored_base, rows)
    exact = read
    if not reader.exact:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".float32-") as name:
            target.write(stored_base, Path(name), "float32")
            copy = target.open(Path(name) / target.path, longest)
            exact = [copy.log_probabilities(r) for r in rows]
    layout = Difference(largest=largest(stored, exact), tolerance=LAYOUT)
    before_at = [at_tokens(p, r) for p, r in zip(before, rows, strict=True)]
    read_at = [at_tokens(p, r) for p, r in zip(read, rows, strict=True)]
    rounding = Difference(largest=largest(before_at, read_at), tolerance=ROUNDING[precision])
    tokenizer = compare_strings(base.tokenizer, reader, rows, target.explain)
    chat = compare_chats(base.tokenizer, reader)
    first = compare_opening(base, reader)
    same = layout.passed and rounding.passed and not tokenizer.unexpected and first["same"]
    return {
        "passed": same and (chat is None or not chat["differing"]),
        "precision": precision,
        "reader": reader.name,
        "independent": reader.independent,
        "tokens": sum(map(len, before_at)),
        "layout": layout,
        "rounding": rounding,
        "nats_per_token": {"model": mean_nats(before_at), "file": mean_nats(read_at)},
        "tokenizer": tokenizer,
        "chat": chat,
        "first_token": first,
        "notes": reader.remarks(STRINGS),
    }


def nats_between(a: Base, b: Base, rows: Sequence[Sequence[int]]) -> float:
    """By how many nats a token the cross-entropy of b exceeds that of a on rows of token ids that both know."""
    cut = [list(r[: min(WINDOW, a.context)]) for r in rows]
    nats = [mean_nats([at_tokens(p, r) for p, r in zip(log_probabilities(x, cut), cut, strict=True)]) for x in (a, b)]
    return nats[1] - nats[0]


def documents(row: Sequence[int], separator: int) -> list[list[int]]:
    """Divide a row of ids into its documents, each with the separator before it and the one that ends it."""
    inside = [i for i, x in enumerate(row) if x == separator and 0 < i < len(row) - 1]
    return [list(row[a : b + 1]) for a, b in pairwise([0, *inside, len(row) - 1])]


@torch.no_grad()
def log_probabilities(base: Base, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities of every next token, (T, vocab) for each row, in float32."""
    net = decoder_of(base, max(map(len, rows)))
    return [net(torch.tensor([list(r)]), None)[0].log_softmax(-1) for r in rows]


def at_tokens(p: Tensor, row: Sequence[int]) -> Tensor:
    """Log-probabilities (T - 1,) of the tokens that follow, out of (T, vocab)."""
    return p[:-1].gather(1, torch.tensor(list(row[1:]))[:, None])[:, 0]


def largest(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(torch.stack([(x - y).abs().max() for x, y in zip(a, b, strict=True)]).max())


def mean_nats(p: Sequence[Tensor]) -> float:
    return -float(torch.cat(list(p)).double().mean())


def compare_strings(t: Tokenizer, reader: Reader, rows: Sequence[Sequence[int]], explain: ExplainDifference) -> Strings:
    """The fixed texts and those of `rows` through both tokenizers."""
    texts = [*STRINGS, *(t.decode(list(r)) for r in rows)]
    differing = [text for text in texts if reader.encode(text) != t.encode(text)]
    reasons = [(text[:80], explain(t, text)) for text in differing]
    return Strings(
        texts=len(texts),
        same=len(texts) - len(differing),
        expected=[text for text, reason in reasons if reason],
        unexpected=[text for text, reason in reasons if not reason],
        reason="; ".join(sorted({reason for _, reason in reasons if reason})) or None,
    )


def compare_chats(t: Tokenizer, reader: Reader) -> dict[str, Any] | None:
    """Conversations through both chat templates, rendered up to the answer; None if there is no template.

    The text must be the same, and so must the ids.
    """
    if t.chat_template is None:
        return None
    read: Sequence[Said | None] = reader.chats(CHATS) or [None] * len(CHATS)
    both = [(own, found) for own, found in zip(said_in(t, CHATS), read, strict=True) if own != found]
    differing = [{"ours": own[0], "theirs": None if found is None else found[0]} for own, found in both]
    return {"conversations": len(CHATS), "same": len(CHATS) - len(differing), "differing": differing}


def compare_opening(base: Base, reader: Reader) -> dict[str, Any]:
    """The id that must come before a text, and whether the reader puts it there by itself."""
    wanted = [] if base.first is None else [base.first]
    opening, name, feed = reader.opening(), None, "No token is fed before a text."
    if base.first is not None:
        name = base.tokenizer.inner.id_to_token(base.first)
        feed = f"{name} (id {base.first}) comes before a text; the tokenizer of the file puts it there."
    return {"id": base.first, "token": name, "same": opening == wanted, "opening": opening, "feed": feed}
