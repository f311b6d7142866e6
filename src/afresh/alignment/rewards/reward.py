"""Rewards: one finite number for each decoded text, picture or sound. What they are, are called, and how they are run.

What a user writes, exactly (white space is free where it stands, and needed where `_` stands):

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import UserError
from afresh.core.kinds import KINDS, shown
from afresh.core.kinds import Kind as Kind

Request = Mapping[str, Any]  # what was asked of an item: prompt, label, caption, ..., as far as given
Array = NDArray[np.float64]
Score = Callable[[Sequence[Any], Sequence[Request]], Any]  # n items and their n requests -> n numbers

BATCH, CONSTANT_BATCHES = 64, 4  # items scored together; batches of one same number before a note says so
VALUES = 1024  # distinct values that a tally counts one by one


class RewardError(UserError):
    """A reward did not give one finite number for each item: names the reward, the item's number and the item."""


class Failed(Exception):
    """What a reward raises to say why it has no numbers, and by which of the items it was given (None: not known)."""

    def __init__(self, reason: str, item: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.item = reason, item


@dataclass(frozen=True)
class Reward:
    """A function of decoded items and their requests; the higher, the better.

    `on_field` is the same function of a field x (B, C, H, W) in [-1, 1] (of sounds: in the space of the run's encoder)
    -> (B,), differentiable, where there is one.
    A weighted sum has `parts`. `close` ends what the reward keeps running. `score` may be called from one thread only.
    """

    name: str
    score: Score
    kind: Kind | None = None  # None: any
    on_field: Callable[[Tensor], Tensor] | None = None
    parts: tuple[tuple[float, Reward], ...] = ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Context:
    """What rewards may be made from: the kind of items, those of training (`novel`), limits, and rewards by a word that
    is known elsewhere (a folder with a reward model, a class)."""

    kind: Kind
    train: Sequence[Any] = ()
    seconds: float = 60.0  # for a batch of a function or program
    workers: int | None = None  # processes of a shell program; None: as many as there are cores
    known: Callable[[str], Reward | None] = lambda word: None


@dataclass(frozen=True)
class Builtin:
    """A reward with a name: how it is made of what stands after the colon (None without one), and a line of help."""

    make: Callable[[str | None, Context], Reward]
    help: str


def builtins(kind: Kind) -> dict[str, Builtin]:
    """The catalog of rewards for a kind of items, by name."""
    from afresh.alignment.rewards.audio import SOUNDS
    from afresh.alignment.rewards.image import PICTURES  # here: they are made of the nouns above
    from afresh.alignment.rewards.text import TEXTS

    return {"text": TEXTS, "picture": PICTURES, "sound": SOUNDS}[kind]


def options(name: str, argument: str | None, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """key=value,key=value read by the functions `known`, which raise ValueError. Raises UserError."""
    found: dict[str, Any] = {}
    accepted = f"Accepted: {name}:{','.join(f'{k}=...' for k in known)}." if known else f"Write {name} alone."
    for part in [] if argument is None else argument.split(","):
        key, equals, value = part.partition("=")
        if key not in known or not equals or key in found:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near and near[0] != key else ""
            raise UserError(f"The reward {name} has no option {part!r} here.{hint} {accepted}")
        try:
            found[key] = known[key](value)
        except ValueError as e:
            raise UserError(f"The reward {name}: {key}={value} is not accepted ({e}). {accepted}") from None
    return found


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
    known = "|".join(sorted({name for kind in KINDS for name in builtins(kind)}))
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
            raise misread(text, i, f"A reward is missing here, such as {', '.join([*builtins('text')][:3])}.")
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
    from afresh.alignment.rewards.programs import python_function, shell_program

    head, colon, argument = term.word.partition(":")
    known = builtins(context.kind)
    if term.word.startswith("!"):
        try:
            return shell_program(term.word, shlex.split(term.word[1:]), context)
        except ValueError as e:
            raise misread(text, term.place, f"The program's words cannot be told apart: {e}.") from None
    if head in known:
        return replace(known[head].make(argument if colon else None, context), name=term.word, kind=context.kind)
    listed = f"For {context.kind}s there are {', '.join(known)}; FILE.py:function, module:function, '!program', the "
    listed += "folder of a reward model, class:LABEL, and for code passes:TESTS.py."
    if others := [f"{kind}s" for kind in KINDS if head in builtins(kind)]:
        raise misread(
            text, term.place, f"{head} is for {' and '.join(others)}, and these are {context.kind}s. {listed}"
        )
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


# ------------------------------------------------------------------------------------------------------------- running


def checked(reward: Reward, items: Sequence[Any], requests: Sequence[Request], first: int = 0) -> Array:
    """One finite number for each of n items, float64 (n,); `first` is the number of the first. Raises RewardError."""
    n = len(items)

    def error(reason: str, item: int | None) -> RewardError:
        which = f"items {first} to {first + n - 1}" if item is None else f"item {first + item}, {shown(items[item])}"
        return RewardError(f"The reward {reward.name} failed for {which}: {reason}")

    if n == 0:
        return np.zeros(0)
    try:
        found = reward.score(items, requests)
    except Failed as e:
        raise error(e.reason, e.item) from e
    except UserError:
        raise
    except Exception as e:  # whatever a user's function raises
        raise error(f"{type(e).__name__}: {e}", None) from e
    try:
        values = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise error(f"it gave what is no list of numbers ({e}).", None) from e
    if values.shape != (n,):
        given = f"numbers of shape {values.shape}" if values.ndim != 1 else f"{len(values)} numbers"
        raise error(f"it gave {given}, and there are {n} items.", None)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise error(f"it gave {values[wrong[0]]}, and a reward has to be a finite number.", int(wrong[0]))
    return values


@dataclass
class Tally:
    """A reward's statistics over a run, one pass: Welford 1962's mean and squares, and how often a value occurs.

    The share of the mode is exact up to VALUES distinct values. Beyond, counts are those of Misra and Gries 1982 and
    may be too small by n / VALUES. All fields are JSON: Tally(**json.loads(json.dumps(vars(t)))) goes on from there.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared distances from the mean
    counts: list[list[float]] = field(default_factory=list)  # [value, how often], at most VALUES

    def add(self, values: Array) -> None:
        """Take in numbers (m,)."""
        counts = {value: int(times) for value, times in self.counts}
        for v in map(float, values):
            self.n += 1
            step = v - self.mean
            self.mean += step / self.n
            self.squares += step * (v - self.mean)
            if v in counts or len(counts) < VALUES:
                counts[v] = counts.get(v, 0) + 1
            else:
                counts = {value: times - 1 for value, times in counts.items() if times > 1}
        self.counts = [[value, times] for value, times in counts.items()]

    def summary(self) -> dict[str, Any]:
        """{n, mean, deviation (of a sample; None below two), mode, mode_share}."""
        mode, times = max(self.counts, key=lambda c: c[1]) if self.counts else (None, 0)
        deviation = (self.squares / (self.n - 1)) ** 0.5 if self.n > 1 else None
        share = times / self.n if self.n else None
        return {"n": self.n, "mean": self.mean, "deviation": deviation, "mode": mode, "mode_share": share}


class Scorer:
    """Runs a reward in batches over a whole run: checks it, keeps a tally of it and of its parts, notes what is odd.

    A note, told once for each reward: it gave one and the same number for every item of CONSTANT_BATCHES batches.
    """

    def __init__(self, reward: Reward, batch: int = BATCH, note: Callable[[str], None] = lambda line: None) -> None:
        self.reward, self.batch, self.note = reward, batch, note
        self.parts = reward.parts or ((1.0, reward),)
        self.tallies = {reward.name: Tally(), **{part.name: Tally() for _, part in self.parts}}
        self.same: dict[str, tuple[float, int] | None] = {}  # the number so far and its batches; None: there are two

    def __call__(self, items: Sequence[Any], requests: Sequence[Request] | None = None) -> Array:
        """float64 (n,) for n items. Raises RewardError."""
        requests = [{}] * len(items) if requests is None else requests
        if len(requests) != len(items):
            raise ValueError(f"{len(items)} items and {len(requests)} requests")
        out = np.zeros(len(items))
        for i in range(0, len(items), self.batch):
            rows = slice(i, i + self.batch)
            for name, values in self.scored(items[rows], requests[rows], i).items():
                self.tallies[name].add(values)
                self.watch(name, values)
                if name == self.reward.name:
                    out[rows] = values
        return out

    def scored(self, items: Sequence[Any], requests: Sequence[Request], first: int) -> dict[str, Array]:
        """The numbers of each part, by name, and of the whole."""
        found = {
            r.name: checked(r, items, requests, first) for r in {part.name: part for _, part in self.parts}.values()
        }
        if self.reward.parts:
            found[self.reward.name] = sum((w * found[r.name] for w, r in self.parts), np.zeros(len(items)))
        return found

    def watch(self, name: str, values: Array) -> None:
        seen = self.same.get(name, (float(values[0]), 0))
        if seen is None or (values != seen[0]).any():
            self.same[name] = None
            return
        self.same[name] = (seen[0], seen[1] + 1)
        if seen[1] + 1 == CONSTANT_BATCHES and self.tallies[name].n > CONSTANT_BATCHES:
            self.note(f"The reward {name} was always {seen[0]:g} so far: nothing can be learnt from it.")
