"""Proof of an export: the file, read again by another program, gives the same log-probabilities and the same ids.

Two comparisons of log-probabilities. `layout`: our network with the numbers of the file against the judge, both in
float32, over the whole vocabulary: a wrong layout shows here and rounding does not. `rounding`: our model as it was
against the judge on the file as it is, at the tokens of the text: what the precision costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from afresh.data.text.tokenizer import Tokenizer
from afresh.formats.base import Base, decoder_of, load_base
from afresh.formats.judges import Judge, Messages
from afresh.formats.parts import Precision
from afresh.formats.tokenizer_differences import Excuse, unseen

LAYOUT = 1e-3  # nats
# Nats at the least likely token, where rounding shows most; a model that is another one is further off.
ROUNDING: dict[Precision, float] = {"float32": 1e-3, "float16": 0.25, "bfloat16": 1.0, "q8_0": 2.0}
WINDOW = 256  # tokens of a text that are compared, at most
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


class Difference(BaseModel):
    """The largest difference of log-probabilities, in nats, and how large it may be."""

    model_config = ConfigDict(frozen=True)
    largest: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance  # false for NaN


class Strings(BaseModel):
    """Texts that both tokenizers encoded: how many to the same ids, and which not, for a known reason or for none."""

    model_config = ConfigDict(frozen=True)
    texts: int
    same: int
    expected: list[str]
    unexpected: list[str]
    reason: str | None


class Proof(BaseModel):
    """proof.json."""

    model_config = ConfigDict(frozen=True)
    passed: bool
    format: str
    precision: str
    judge: str
    independent: bool
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


Open = Callable[[Path, int], Judge]


def prove(
    base: Base,
    target: Path,
    precision: Precision,
    rows: Sequence[Sequence[int]],
    open_judge: Open,
    write_twin: Callable[[Base, Path], Path],
    excuse: Excuse,
) -> dict[str, Any]:
    """The measured fields of a `Proof`. `rows`: ids of texts, each with its first token. `target` is what was written;
    `write_twin` writes a base in float32 for a judge that rounds what it multiplies. `excuse` says why the format
    cannot give a text the same ids."""
    rows = [list(r[: min(WINDOW, base.context)]) for r in rows]
    if base.config.apart:  # other programs let a document see the one before it
        rows = [part for r in rows for part in documents(r, base.tokenizer.special["end"])]
    longest = max(map(len, rows))
    ours = logp(base, rows)
    judge = open_judge(target, longest)
    theirs = [judge.log_probabilities(r) for r in rows]
    again = load_base(target)
    stored = logp(again, rows)
    exact = theirs
    if not judge.exact:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".twin-") as folder:
            twin = open_judge(write_twin(again, Path(folder)), longest)
            exact = [twin.log_probabilities(r) for r in rows]
    layout = Difference(largest=largest(stored, exact), tolerance=LAYOUT)
    texts = [at_text(p, r) for p, r in zip(ours, rows, strict=True)]
    found = [at_text(p, r) for p, r in zip(theirs, rows, strict=True)]
    rounding = Difference(largest=largest(texts, found), tolerance=ROUNDING[precision])
    tokenizer = strings(base.tokenizer, judge, rows, excuse)
    chat = chats(base.tokenizer, judge)
    first = opening(base, judge)
    good = layout.passed and rounding.passed and not tokenizer.unexpected and first["same"]
    return {
        "passed": good and (chat is None or not chat["differing"]),
        "precision": precision,
        "judge": judge.name,
        "independent": judge.independent,
        "tokens": sum(map(len, texts)),
        "layout": layout,
        "rounding": rounding,
        "nats_per_token": {"model": mean(texts), "file": mean(found)},
        "tokenizer": tokenizer,
        "chat": chat,
        "first_token": first,
    }


def documents(row: Sequence[int], separator: int) -> list[list[int]]:
    """The documents in a row of ids one by one, each with the separator before it and the one that ends it."""
    inside = [i for i, x in enumerate(row) if x == separator and 0 < i < len(row) - 1]
    return [list(row[a : b + 1]) for a, b in pairwise([0, *inside, len(row) - 1])]


@torch.no_grad()
def logp(base: Base, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Log-probabilities of every next token, (T, vocab) a row, in float32."""
    net = decoder_of(base, max(map(len, rows)))
    return [net(torch.tensor([list(r)]), None)[0].log_softmax(-1) for r in rows]


def at_text(p: Tensor, row: Sequence[int]) -> Tensor:
    """Log-probabilities of the tokens that follow, (T - 1,)."""
    return p[:-1].gather(1, torch.tensor(list(row[1:]))[:, None])[:, 0]


def largest(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(torch.stack([(x - y).abs().max() for x, y in zip(a, b, strict=True)]).max())


def mean(p: Sequence[Tensor]) -> float:
    return -float(torch.cat(list(p)).double().mean())


def strings(t: Tokenizer, judge: Judge, rows: Sequence[Sequence[int]], excuse: Excuse) -> Strings:
    """The fixed texts and those of `rows` through both tokenizers."""
    texts = [*STRINGS, *(t.decode(list(r)) for r in rows)]
    differing = [text for text in texts if judge.encode(text) != t.encode(text)]
    reasons = [(text[:80], excuse(t, text)) for text in differing]
    return Strings(
        texts=len(texts),
        same=len(texts) - len(differing),
        expected=[text for text, why in reasons if why],
        unexpected=[text for text, why in reasons if not why],
        reason="; ".join(sorted({why for _, why in reasons if why})) or None,
    )


def chats(t: Tokenizer, judge: Judge) -> dict[str, Any] | None:
    """Conversations through both chat templates, rendered up to the answer; None where there is no template.

    The text must be the same, and so must the ids, but for characters that did not occur in training.
    """
    from afresh.data.text.chat import ChatTemplate

    if t.chat_template is None:
        return None
    template, same, expected, differing = ChatTemplate(t), 0, 0, []
    for messages in CHATS:
        turns = tuple((m["role"], m["content"]) for m in messages)
        text, ids = template.render(turns, True), [int(i) for i in template.encode([turns], [""])[0][0]]
        theirs = judge.chat(messages)
        if theirs == (text, ids):
            same += 1
        elif theirs is not None and theirs[0] == text and unseen(t, text):
            expected += 1
        else:
            differing.append({"ours": text, "theirs": None if theirs is None else theirs[0]})
    return {"conversations": len(CHATS), "same": same, "expected": expected, "differing": differing}


def opening(base: Base, judge: Judge) -> dict[str, Any]:
    """What must be fed before a text, and whether the judge does so of itself."""
    wanted = [] if base.first is None else [base.first]
    found = judge.opening()
    name = None if base.first is None else base.tokenizer.inner.id_to_token(base.first)
    if base.first is None:
        feed = "Nothing is fed before a text."
    else:
        feed = f"{name} (id {base.first}) stands before a text; the tokenizer of the file puts it there."
    return {"id": base.first, "token": name, "same": found == wanted, "found": found, "feed": feed}
