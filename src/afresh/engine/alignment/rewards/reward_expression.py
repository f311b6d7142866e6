"""Parses the words that a user writes for a reward, and builds the reward.

The grammar, in which white space is optional and `_` stands for white space that is required:

    sum     = [sign] term { _ sign _ term }        sign = "+" | "-"
    term    = [ number "*" ] word                  number = 2 | 0.7 | .5 | 1e-3
    word    = built-in [":" argument]  |  FILE.py:function  |  module:function  |  "!" program

A word ends at white space, and a sign inside a word (near:my-cat.png) is a part of it. Text in '...' or "..." inside a
word is literal, including white space and signs. Nothing escapes a quote; one of one kind is written in quotes
of the other kind. A program without quotes extends to the end of the text, and is split into words like by a shell. Two
forms are refused as ambiguous: a separate sign in such a program, and a sign inside a word that is followed by the name
of a built-in reward (contains:well-parses).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from torch import Tensor

from afresh.core import ItemKind, UserError, registry
from afresh.engine.alignment.rewards.programs import python_function, shell_program
from afresh.engine.alignment.rewards.reward import Array, Builtin, Context, Request, Reward, checked


def builtins(kind: ItemKind) -> dict[str, Builtin]:
    """The built-in rewards for a kind of items, by name; empty if there are none."""
    tables = registry.rewards()
    return {**tables.get(kind.name, {}), **tables.get("", {})}


def builtin_names() -> set[str]:
    """The names of the built-in rewards for all kinds of items."""
    return {name for table in registry.rewards().values() for name in table}


# ---------------------------------------------------------------------------------------------------- what users write


@dataclass(frozen=True)
class RewardTerm:
    """One weighted reward as it was written: `word` without quotes, and its position in the text."""

    weight: float
    word: str
    position: int


NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
TOKEN = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")  # of a program's words


def parse_error(text: str, position: int, reason: str) -> UserError:
    return UserError("This reward cannot be parsed:", lines=[text, f"{' ' * position}^ {reason}"])


def read_word(text: str, start: int) -> tuple[str, str, int]:
    """(word, the word with a NUL for each quoted character, the position after it). Raises UserError."""
    word, bare, i = "", "", start
    while i < len(text) and not text[i].isspace():
        if text[i] in "'\"":
            end = text.find(text[i], i + 1)
            if end < 0:
                other = '"' if text[i] == "'" else "'"
                raise parse_error(
                    text, i, f"This quote is not closed. Write {other}{text[i]}{other} for a {text[i]} itself."
                )
            word, bare, i = word + text[i + 1 : end], bare + "\0" * (end - i - 1), end + 1
        else:
            word, bare, i = word + text[i], bare + text[i], i + 1
    return word, bare, i


def read_program(text: str, start: int) -> str:
    """A program without quotes, up to the end of the text. Raises UserError if it has a separate sign."""
    for token in TOKEN.finditer(text, start):
        if token.group() in ("+", "-"):
            raise parse_error(
                text,
                token.start(),
                "Is this sign the program's or the sum's? Put the program in quotes ('!program args' + length), or the "
                "sign (!program '-').",
            )
    return text[start:].rstrip()


def check_sign(text: str, start: int, bare: str) -> None:
    """Raises UserError for a sign in a word that may have been meant to separate two rewards."""
    known = "|".join(sorted(builtin_names()))
    ambiguous = re.search(rf"[+-](?:{NUMBER}\*)?(?:{known})(?![\w.])", bare)
    if ambiguous:
        raise parse_error(
            text,
            text.find(ambiguous.group(), start),
            f"Is {ambiguous.group()!r} another reward or a part of this one? A sign between rewards has a space on "
            "both sides; put it in quotes if it is a part of this one.",
        )


def parse(text: str) -> list[RewardTerm]:
    """The terms of a sum in the grammar above. Raises UserError, which shows the position of the error."""
    terms: list[RewardTerm] = []
    at = re.compile(r"\s*([+-]?)\s*").match(text)
    assert at
    sign, i = at.group(1), at.end()
    while True:
        if i == len(text):
            raise parse_error(text, i, "A reward is missing here, such as length, brightness or FILE.py:function.")
        factor = re.compile(rf"({NUMBER})\s*\*\s*").match(text, i)
        weight = float(factor.group(1)) if factor else 1.0
        if not np.isfinite(weight):
            raise parse_error(text, i, "The weight is too large.")
        i = factor.end() if factor else i
        if text[i : i + 1] in ("+", "-"):
            raise parse_error(
                text, i, "A reward is expected here, not a sign: write one sign, and weights without a sign."
            )
        if text[i : i + 1] == "!":
            word, end = read_program(text, i), len(text)
        else:
            word, bare, end = read_word(text, i)
            check_sign(text, i, bare)
        if not word:
            raise parse_error(text, i, "A reward is missing here: a weight is written 0.7*NAME.")
        terms.append(RewardTerm(-weight if sign == "-" else weight, word, i))
        more = re.compile(r"\s+([+-])(?:\s+|$)").match(text, end)
        if text[end:].strip() and not more:
            i = end + len(text[end:]) - len(text[end:].lstrip())
            raise parse_error(
                text,
                i,
                "A sign is missing before this: write + or - with a space on both sides between rewards, and put text "
                "with spaces in quotes.",
            )
        if not more:
            return terms
        sign, i = more.group(1), more.end()


def build(text: str, context: Context) -> Reward:
    """The reward that a user's words stand for.

    Raises UserError for words that are unknown or ambiguous, and for rewards of another kind of items.
    """
    parts: list[tuple[float, Reward]] = []
    try:
        for term in parse(text):
            parts.append((term.weight, named(text, term, context)))
    except BaseException:
        for _, part in parts:
            part.close()
        raise
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else weighted(text.strip(), parts)


def named(text: str, term: RewardTerm, context: Context) -> Reward:
    """The reward of one term. Names of built-in rewards take precedence."""
    head, colon, argument = term.word.partition(":")
    known = builtins(context.kind)
    if term.word.startswith("!"):
        try:
            return shell_program(term.word, shlex.split(term.word[1:]), context)
        except ValueError as e:
            raise parse_error(text, term.position, f"The program cannot be split into words: {e}.") from None
    if head in known:
        return replace(known[head].make(argument if colon else None, context), name=term.word, kind=context.kind)
    plural = context.kind.plural
    listed = f"Rewards for {plural} are {', '.join([*known, ''])}FILE.py:function, module:function, '!program', the "
    listed += "folder of a reward model, and class:LABEL."
    if others := sorted(k.plural for k in registry.kinds().values() if head in builtins(k)):
        raise parse_error(text, term.position, f"{head} is for {' and '.join(others)}, not for {plural}. {listed}")
    if (reward := context.known(term.word)) is not None:
        return replace(reward, name=term.word)
    source, _, function = term.word.rpartition(":")
    near = get_close_matches(head, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if function.isidentifier() and (source.endswith(".py") or all(p.isidentifier() for p in source.split("."))):
        return python_function(term.word, source, function, context, hint)
    if re.search(r"[+*(]|.-", head):
        hint += " A sign between rewards has a space on both sides, weights come first, and parentheses are not used."
    raise parse_error(text, term.position, f"No reward {term.word!r}.{hint} {listed}")


def weighted(name: str, parts: Sequence[tuple[float, Reward]]) -> Reward:
    """The weighted sum of rewards, differentiable if all its parts are."""
    forms = [(w, r.on_field) for w, r in parts if r.on_field is not None]

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
        return sum((w * checked(r, items, requests) for w, r in parts), np.zeros(len(items)))

    def on_field(x: Tensor) -> Tensor:
        return sum((w * form(x) for w, form in forms), x.new_zeros(len(x)))

    def close() -> None:
        for _, part in parts:
            part.close()

    kind = next((r.kind for _, r in parts if r.kind), None)
    return Reward(name, score, kind, on_field if len(forms) == len(parts) else None, tuple(parts), close)
