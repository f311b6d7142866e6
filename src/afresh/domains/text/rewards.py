"""Built-in rewards for texts and code."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afresh.core import UserError
from afresh.data.text.kind import TEXT, cosine, grams
from afresh.engine.alignment.rewards.programs import limited
from afresh.engine.alignment.rewards.reward import Builtin, Context, Reward, options, required, whole_file

NOVELTY_WINDOW = 16  # default length of the windows of `novel`, in characters
UNITS: dict[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: len(text.splitlines()),
}


def each(function: Callable[[str], float], seconds: float | None = None) -> Reward:
    """The reward of a function of one text, with a time limit for each batch if `seconds` is given."""

    def score(items: Sequence[str], requests: Sequence[object]) -> list[float]:
        return [function(text) for text in items]

    return Reward("", score if seconds is None else limited(score, seconds))


def whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("a whole number above 0")
    return int(text)


def unit(text: str) -> Callable[[str], int]:
    if text not in UNITS:
        raise ValueError(f"one of {', '.join(UNITS)}")
    return UNITS[text]


def within(count: int, low: int | None, high: int | None) -> float:
    """1 between low and high, count / low below, high / count above."""
    if low is not None and count < low:
        return count / low
    return high / count if high is not None and count > high else 1.0


def length(argument: str | None, context: Context) -> Reward:
    """The number of characters, words or lines. With min or max: 1 between them, and less outside as in `within`."""
    given = options("length", argument, {"min": whole, "max": whole, "unit": unit})
    low, high, count = given.get("min"), given.get("max"), given.get("unit", len)
    if low is None and high is None:
        return each(lambda text: float(count(text)))
    if low is not None and high is not None and low > high:
        raise UserError(f"The reward length: min={low} is above max={high}. Exchange them.")
    return each(lambda text: within(count(text), low, high))


def contains(argument: str | None, context: Context) -> Reward:
    """1 if the item contains the text, else 0. Case matters."""
    wanted = required("contains", "TEXT", argument)
    return each(lambda text: float(wanted in text))


def matches(argument: str | None, context: Context) -> Reward:
    """1 if the regular expression matches anywhere in the item, else 0. Anchors: \\A and \\Z."""
    pattern = required("matches", "REGEX", argument)
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as e:
        raise UserError(
            f"The reward matches: {pattern!r} is not a regular expression of Python ({e}). Correct it."
        ) from None
    return each(lambda text: float(compiled.search(text) is not None), context.seconds)


def parses(argument: str | None, context: Context) -> Reward:
    """1 for a Python program with at least one statement, else 0. An empty program would be a trivial optimum."""
    options("parses", argument, {})

    def score(text: str) -> float:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about invalid escape sequences
                return float(bool(ast.parse(text).body))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: too deeply nested
            return 0.0

    return each(score)


def no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def is_json(argument: str | None, context: Context) -> Reward:
    """1 for a JSON document (RFC 8259: without NaN and Infinity); else 0."""
    options("json", argument, {})

    def score(text: str) -> float:
        try:
            json.loads(text, parse_int=str, parse_constant=no_constant)  # int() refuses numbers of many digits
        except (ValueError, RecursionError):
            return 0.0
        return 1.0

    return each(score)


def near(argument: str | None, context: Context) -> Reward:
    """Similarity to the text of a file: the cosine of the counts of 3-grams of characters, 0 to 1."""
    path = Path(required("near", "FILE", argument))
    try:
        wanted = grams(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"The reward near: {path} cannot be read as a text in UTF-8 ({e}). Name a text file.") from None
    return each(lambda text: cosine(grams(text), wanted))


def windows(text: str, n: int) -> NDArray[np.uint64]:
    """Hashes of all windows of n characters, uint64 (max(1, length - n + 1),). A shorter text is one window."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64) + np.uint64(1)
    count = max(1, len(codes) - n + 1)
    out = np.zeros(count, np.uint64)
    for i in range(min(n, len(codes))):  # a polynomial modulo 2^64; products overflow
        out = out * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + count]
    return (out ^ (out >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)


def novel(argument: str | None, context: Context) -> Reward:
    """The share of a text's windows of n characters that no training text contains: 0 if all are copied, 1 if none is.

    n-gram novelty (McCoy et al. 2023), of characters. A text shorter than n is one window, compared with training texts
    that are shorter than n. Takes 8 bytes of memory for each distinct window of the training texts.
    """
    n = options("novel", argument, {"n": whole}).get("n", NOVELTY_WINDOW)
    if not context.train:
        raise UserError("The reward novel needs training texts, which are not available here.")
    known = np.unique(np.concatenate([np.unique(windows(text, n)) for text in context.train]))
    return each(lambda text: 1.0 - float(np.isin(windows(text, n), known).mean()))


TEXTS = {
    "length": Builtin(
        length, "number of characters; min=, max= (1 between them and less outside), unit=words or lines"
    ),
    "contains": Builtin(contains, "contains:TEXT is 1 if the item contains the text, else 0"),
    "matches": Builtin(matches, "matches:REGEX is 1 if the regular expression matches anywhere, else 0", endless=True),
    "parses": Builtin(parses, "1 for a Python program with at least one statement, else 0"),
    "json": Builtin(is_json, "1 for a JSON document, else 0"),
    "near": Builtin(
        near, "near:FILE, similarity to a text file by counts of three characters, 0 to 1", file=whole_file
    ),
    "novel": Builtin(novel, "share of windows of n= characters that no training text contains, 0 to 1"),
}
REWARDS = {TEXT.name: TEXTS}
