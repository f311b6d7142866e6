"""Whether a text is prose: the rules of Gopher, C4 and FineWeb, one function each.

Gopher: Rae et al. 2021 (arXiv 2112.11446), appendix A.1. C4: Raffel et al. 2020 (arXiv 1910.10683), section 2.2.
FineWeb: Penedo et al. 2024 (arXiv 2406.17557), section 3.6.

Rules that are on by default are those that keep stories, books and articles. Shares of a few words say little: texts of
fewer than FEW words are not judged by them, nor texts in scripts without spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from operator import ge, le

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Rule, Verdict
from afresh.services.collect.rules.text import RuleText, changed_lines, text_of
from afresh.services.collect.rules.values import Amount, Count, Share

FEW = 50  # words; Gopher has no shorter texts
TEXT = ("text",)
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "-", "*", "·")
ENDS = (".", "!", "?", '"', "'", "”", "’", "»", "…", ":", ";", "。", "！", "？", "」", "।", "؟", ")")
SENTENCE = re.compile(r"[.!?…]+(?=[\s\"'”’)»]|$)|[。！？।؟]")
SHORT_LINE = 30  # characters


def _judged(record: Record) -> RuleText | None:
    """The parts of a text that is long enough to be judged by shares of its words; None for another."""
    text = text_of(record.text or "")
    return text if text.alphabetic and len(text.words) >= FEW else None


def text_numbers(record: Record) -> Verdict:
    text = text_of(record.text or "")
    words = len(text.words)
    if not words:
        return record
    mean = round(text.characters / words, 3)
    return record.scored(words=words, word_length=mean, lines=len(text.lines))


# --------------------------------------------------------------------------- Gopher


def words_few(record: Record, value: int) -> Verdict:
    words = len(text_of(record.text or "").words)
    return record if words >= value else f"{words:,} words"


def words_many(record: Record, value: int) -> Verdict:
    words = len(text_of(record.text or "").words)
    return record if words <= value else f"{words:,} words"


def word_length(record: Record, value: float, within: Callable[[float, float], bool]) -> Verdict:
    """Whether the characters of all words are within `value` for each word: at least or at most so many."""
    text = _judged(record)
    if text is None or within(text.characters, value * len(text.words)):
        return record
    return f"words of {text.characters / len(text.words):.1f} characters on average"


def symbols(record: Record, value: float) -> Verdict:
    text = _judged(record)
    if text is None:
        return record
    dots = text.text.count("...") + text.text.count("…")
    hashes = text.text.count("#")
    most = value * len(text.words)
    if dots <= most and hashes <= most:
        return record
    return f"{hashes:,} number signs and {dots:,} ellipses to {len(text.words):,} words"


def _few_lines(record: Record, text: RuleText | None, value: float, has: Callable[[str], bool], what: str) -> Verdict:
    """Whether at most a share of the lines has something; a record without a text that is judged is kept."""
    if text is None:
        return record
    count = sum(map(has, text.lines))
    return record if count <= value * len(text.lines) else f"{count:,} of {len(text.lines):,} lines {what}"


def bullets(record: Record, value: float) -> Verdict:
    return _few_lines(record, _judged(record), value, lambda line: line.startswith(BULLETS), "are of a list")


def ellipses(record: Record, value: float) -> Verdict:
    return _few_lines(record, _judged(record), value, lambda line: line.endswith(("...", "…")), "end in an ellipsis")


def letters(record: Record, value: float) -> Verdict:
    text = _judged(record)
    if text is None:
        return record
    count = len(text.words) - sum(map(str.isnumeric, text.words))
    return record if count >= value * len(text.words) else f"{count:,} of {len(text.words):,} words have a letter"


def stop_words(record: Record, value: int) -> Verdict:
    text = _judged(record) if record.language == "en" else None
    if text is None:
        return record
    found: set[str] = set()
    for word in text.words:
        if (low := word.lower()) in STOP_WORDS:
            found.add(low)
            if len(found) >= value:
                return record
    return f"{len(found)} of {', '.join(sorted(STOP_WORDS))} in {len(text.words):,} words"


# --------------------------------------------------------------------------- C4


def placeholder(record: Record) -> Verdict:
    return "it holds lorem ipsum" if "lorem ipsum" in (record.text or "").lower() else record


def curly_brackets(record: Record) -> Verdict:
    return "it holds a curly bracket" if "{" in (record.text or "") else record


def sentences_few(record: Record, value: int) -> Verdict:
    found = 0
    for _ in SENTENCE.finditer(record.text or ""):
        found += 1
        if found >= value:
            return record
    return record if found >= value else f"{found:,} sentences"


def lines_unfinished(record: Record) -> Verdict:
    nothing = "no line ends in punctuation"
    return changed_lines(
        record, lambda line: line.rstrip().endswith((".", "!", "?", '"', "”", "。", "！", "？")), nothing
    )


def lines_few_words(record: Record, value: int) -> Verdict:
    return changed_lines(record, lambda line: len(line.split()) >= value, f"no line has {value} words")


# --------------------------------------------------------------------------- FineWeb


def lines_finished(record: Record, value: float) -> Verdict:
    lines = text_of(record.text or "").lines
    count = sum(line.endswith(ENDS) for line in lines)
    return record if count >= value * len(lines) else f"{count:,} of {len(lines):,} lines end in punctuation"


def lines_short(record: Record, value: float) -> Verdict:
    what = f"have fewer than {SHORT_LINE} characters"
    return _few_lines(record, text_of(record.text or ""), value, lambda line: len(line) < SHORT_LINE, what)


def newlines(record: Record, value: float) -> Verdict:
    text = text_of(record.text or "")
    count = text.text.count("\n")
    return record if count <= value * len(text.words) else f"{count:,} ends of lines to {len(text.words):,} words"


GOPHER, C4, FINEWEB = "(Gopher)", "(C4)", "(FineWeb)"

RULES = (
    Rule(
        "text_numbers",
        "The numbers of words and lines and the mean length of words are noted as scores.",
        TEXT,
        text_numbers,
    ),
    Rule("words_few", f"A text has at least so many words {GOPHER}.", TEXT, words_few, False, 50, Count),
    Rule("words_many", f"A text has at most so many words {GOPHER}.", TEXT, words_many, False, 100_000, Count),
    Rule(
        "words_short",
        f"Words have at least so many characters on average {GOPHER}.",
        TEXT,
        partial(word_length, within=ge),
        True,
        3.0,
        Amount,
    ),
    Rule(
        "words_long",
        f"Words have at most so many characters on average {GOPHER}.",
        TEXT,
        partial(word_length, within=le),
        True,
        10.0,
        Amount,
    ),
    Rule(
        "symbols",
        f"There are at most so many number signs, and so many ellipses, for each word {GOPHER}.",
        TEXT,
        symbols,
        True,
        0.1,
        Amount,
    ),
    Rule(
        "bullets",
        f"At most this share of the lines begins like the entry of a list {GOPHER}.",
        TEXT,
        bullets,
        True,
        0.9,
        Share,
    ),
    Rule(
        "ellipses", f"At most this share of the lines ends in an ellipsis {GOPHER}.", TEXT, ellipses, True, 0.3, Share
    ),
    Rule("letters", f"At least this share of the words has a letter {GOPHER}.", TEXT, letters, True, 0.8, Share),
    Rule(
        "stop_words",
        f"An English text has at least so many of the words be, have, of, that, the, to, with, and {GOPHER}.",
        TEXT,
        stop_words,
        True,
        2,
        Count,
    ),
    Rule("placeholder", f"Texts with lorem ipsum are left out {C4}.", TEXT, placeholder),
    Rule(
        "curly_brackets",
        f"Texts with a curly bracket, as programs have it, are left out {C4}.",
        TEXT,
        curly_brackets,
        False,
    ),
    Rule(
        "lines_unfinished",
        f"Lines that do not end in punctuation are removed {C4}; this takes headings, verses and lists.",
        TEXT,
        lines_unfinished,
        False,
    ),
    Rule("lines_few_words", f"Lines of fewer words are removed {C4}.", TEXT, lines_few_words, False, 3, Count),
    Rule("sentences_few", f"A text has at least so many sentences {C4}.", TEXT, sentences_few, False, 3, Count),
    Rule(
        "lines_finished",
        f"At least this share of the lines ends in punctuation {FINEWEB}.",
        TEXT,
        lines_finished,
        False,
        0.12,
        Share,
    ),
    Rule(
        "lines_short",
        f"At most this share of the lines has fewer than {SHORT_LINE} characters {FINEWEB}.",
        TEXT,
        lines_short,
        False,
        0.67,
        Share,
    ),
    Rule(
        "newlines",
        f"There are at most so many ends of lines for each word {FINEWEB}.",
        TEXT,
        newlines,
        False,
        0.3,
        Amount,
    ),
)
