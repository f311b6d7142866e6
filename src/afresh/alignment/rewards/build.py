"""What a user writes for a reward, and how it becomes one.

Exactly (white space is free where it stands, and needed where `_` stands):

    sum     = [sign] term { _ sign _ term }        sign = "+" | "-"
    term    = [ number "*" ] word                  number = 2 | 0.7 | .5 | 1e-3
    word    = built-in [":" argument]  |  FILE.py:function  |  module:function  |  "!" program

A word ends at white space. What stands in '...' or "..." inside a word is taken as it is, white space and signs too;
there is no escape, a backslash is a backslash, and a quote of one kind is written in quotes of the other. So a sign
inside a word (near:my-cat.png) is a part of it. A program without quotes goes on to the end of the text, and is then
split as a shell splits it. Refused as ambiguous: a stand-alone sign in such a program, and a sign in a word that has
the name of a built-in reward behind it (contains:well-parses).
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

from afresh.alignment.rewards.programs import python_function, shell_program
from afresh.alignment.rewards.reward import Array, Builtin, Context, Request, Reward, checked
from afresh.core import ItemKind, UserError, registry


def builtins(kind: ItemKind) -> dict[str, Builtin]:
    """The rewards with a name for a kind of items; empty if there are none."""
    return registry.rewards().get(kind.name, {})


def builtin_names() -> set[str]:
    """The names of rewards for any kind of items."""
    return {name for table in registry.rewards().values() for name in table}


# ---------------------------------------------------------------------------------------------------- what users write


@dataclass(frozen=True)
class Term:
    """One weighted reward as it was written: `word` without quotes, and its place in the text."""

    weight: float
    word: str
    place: int


NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
TOKEN = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+""")  # of a program's words


def misread(text: str, place: int, why: str) -> UserError:
    return UserError(f"This reward cannot be read:\n  {text}\n  {' ' * place}^ {why}")


def word_at(text: str, start: int) -> tuple[str, str, int]:
    """(word, the same with a NUL for each quoted character, the place behind it). Raises UserError."""
    word, bare, i = "", "", start
    while i < len(text) and not text[i].isspace():
        if text[i] in "'\"":
            end = text.find(text[i], i + 1)
            if end < 0:
                other = '"' if text[i] == "'" else "'"
                raise misread(
                    text, i, f"This quote is not closed. A {text[i]} itself is written {other}{text[i]}{other}."
                )
            word, bare, i = word + text[i + 1 : end], bare + "\0" * (end - i - 1), end + 1
        else:
            word, bare, i = word + text[i], bare + text[i], i + 1
    return word, bare, i


def program_at(text: str, start: int) -> str:
    """A program without quotes: all that follows. Raises UserError where a sign in it may be one of the sum."""
    for token in TOKEN.finditer(text, start):
        if token.group() in ("+", "-"):
            raise misread(
                text,
                token.start(),
                "Is this sign the program's or the sum's? Put the program in quotes ('!program args' + length), or the "
                "sign (!program '-').",
            )
    return text[start:].rstrip()


def clear(text: str, start: int, bare: str) -> None:
    """Raises UserError for a sign in a word that may have been meant as one between two rewards."""
    known = "|".join(sorted(builtin_names()))
    meant = re.search(rf"[+-](?:{NUMBER}\*)?(?:{known})(?![\w.])", bare)
    if meant:
        place = text.find(meant.group(), start)
        raise misread(
            text,
            place,
            f"Is {meant.group()!r} another reward or a part of this one? Between rewards a sign has a space on both "
            "sides; as a part, put it in quotes.",
        )


def parse(text: str) -> list[Term]:
    """The terms of a sum, by the grammar above. Raises UserError that shows where it cannot be read."""
    terms: list[Term] = []
    at = re.compile(r"\s*([+-]?)\s*").match(text)
    assert at
    sign, i = at.group(1), at.end()
    while True:
        if i == len(text):
            raise misread(text, i, "A reward is missing here, such as length, brightness or FILE.py:function.")
        factor = re.compile(rf"({NUMBER})\s*\*\s*").match(text, i)
        weight = float(factor.group(1)) if factor else 1.0
        if not np.isfinite(weight):
            raise misread(text, i, "The weight is too large a number.")
        i = factor.end() if factor else i
        if text[i : i + 1] in ("+", "-"):
            raise misread(text, i, "A sign stands here where a reward should: write one sign, and weights without any.")
        if text[i : i + 1] == "!":
            word, end = program_at(text, i), len(text)
        else:
            word, bare, end = word_at(text, i)
            clear(text, i, bare)
        if not word:
            raise misread(text, i, "A reward is missing here: a weight is written 0.7*NAME.")
        terms.append(Term(-weight if sign == "-" else weight, word, i))
        more = re.compile(r"\s+([+-])(?:\s+|$)").match(text, end)
        if text[end:].strip() and not more:
            i = end + len(text[end:]) - len(text[end:].lstrip())
            raise misread(
                text,
                i,
                "A sign is missing before this: between rewards stands + or - with a space on both sides; text "
                "with spaces goes in quotes.",
            )
        if not more:
            return terms
        sign, i = more.group(1), more.end()


def build(text: str, context: Context) -> Reward:
    """The reward that a user's words stand for. Raises UserError for what is unknown, ambiguous or for another kind."""
    parts: list[tuple[float, Reward]] = []
    try:
        for term in parse(text):
            parts.append((term.weight, named(text, term, context)))
    except BaseException:
        for _, part in parts:
            part.close()
        raise
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else weighted(text.strip(), parts)


def named(text: str, term: Term, context: Context) -> Reward:
    """The reward of one term. Built-in names come first."""
    head, colon, argument = term.word.partition(":")
    known = builtins(context.kind)
    if term.word.startswith("!"):
        try:
            return shell_program(term.word, shlex.split(term.word[1:]), context)
        except ValueError as e:
            raise misread(text, term.place, f"The program's words cannot be told apart: {e}.") from None
    if head in known:
        return replace(known[head].make(argument if colon else None, context), name=term.word, kind=context.kind)
    plural = context.kind.plural
    listed = f"For {plural} there are {', '.join([*known, ''])}FILE.py:function, module:function, '!program', the "
    listed += "folder of a reward model, and class:LABEL."
    if others := [k.plural for k in registry.kinds().values() if head in builtins(k)]:
        raise misread(text, term.place, f"{head} is for {' and '.join(others)}, and these are {plural}. {listed}")
    if (found := context.known(term.word)) is not None:
        return replace(found, name=term.word)
    source, _, function = term.word.rpartition(":")
    near = get_close_matches(head, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    if function.isidentifier() and (source.endswith(".py") or all(p.isidentifier() for p in source.split("."))):
        return python_function(term.word, source, function, context, hint)
    if re.search(r"[+*(]|.-", head):
        hint += " Between rewards a sign has a space on both sides, weights come first, and there are no parentheses."
    raise misread(text, term.place, f"There is no reward {term.word!r}.{hint} {listed}")


def weighted(name: str, parts: Sequence[tuple[float, Reward]]) -> Reward:
    """A weighted sum; it has a differentiable form where all its parts have one."""
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
