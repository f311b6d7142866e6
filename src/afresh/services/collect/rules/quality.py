"""Whether a text is prose: the rules of Gopher, C4 and FineWeb, one function each.

Gopher: Rae et al. 2021 (arXiv 2112.11446), appendix A.1. C4: Raffel et al. 2020 (arXiv 1910.10683), section 2.2.
FineWeb: Penedo et al. 2024 (arXiv 2406.17557), section 3.6.

Rules that are on by default are those that keep stories, books and articles. Shares of a few words say little: texts of
fewer than FEW words are not judged by them, nor texts in scripts without spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import ge, le

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Amount, Count, Share, Verdict, rule
from afresh.services.collect.rules.text import RuleText, changed_lines, text_of

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


@rule(TEXT)
def text_numbers(record: Record) -> Verdict:
    """The numbers of words and lines and the mean length of words are noted as scores."""
    text = text_of(record.text or "")
    words = len(text.words)
    if not words:
        return record
    mean = round(text.characters / words, 3)
    return record.scored(words=words, word_length=mean, lines=len(text.lines))


# --------------------------------------------------------------------------- Gopher


@rule(TEXT, on=False, value=50, accepts=Count)
def words_few(record: Record, value: int) -> Verdict:
    """A text has at least so many words (Gopher)."""
    words = len(text_of(record.text or "").words)
    return record if words >= value else f"{words:,} words"


@rule(TEXT, on=False, value=100_000, accepts=Count)
def words_many(record: Record, value: int) -> Verdict:
    """A text has at most so many words (Gopher)."""
    words = len(text_of(record.text or "").words)
    return record if words <= value else f"{words:,} words"


def _word_length(record: Record, value: float, within: Callable[[float, float], bool]) -> Verdict:
    """Whether the characters of all words are within `value` for each word: at least or at most so many."""
    text = _judged(record)
    if text is None or within(text.characters, value * len(text.words)):
        return record
    return f"words of {text.characters / len(text.words):.1f} characters on average"


@rule(TEXT, value=3.0, accepts=Amount)
def words_short(record: Record, value: float) -> Verdict:
    """Words have at least so many characters on average (Gopher)."""
    return _word_length(record, value, ge)


@rule(TEXT, value=10.0, accepts=Amount)
def words_long(record: Record, value: float) -> Verdict:
    """Words have at most so many characters on average (Gopher)."""
    return _word_length(record, value, le)


@rule(TEXT, value=0.1, accepts=Amount)
def symbols(record: Record, value: float) -> Verdict:
    """There are at most so many number signs, and so many ellipses, for each word (Gopher)."""
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


@rule(TEXT, value=0.9, accepts=Share)
def bullets(record: Record, value: float) -> Verdict:
    """At most this share of the lines begins like the entry of a list (Gopher)."""
    return _few_lines(record, _judged(record), value, lambda line: line.startswith(BULLETS), "are of a list")


@rule(TEXT, value=0.3, accepts=Share)
def ellipses(record: Record, value: float) -> Verdict:
    """At most this share of the lines ends in an ellipsis (Gopher)."""
    return _few_lines(record, _judged(record), value, lambda line: line.endswith(("...", "…")), "end in an ellipsis")


@rule(TEXT, value=0.8, accepts=Share)
def letters(record: Record, value: float) -> Verdict:
    """At least this share of the words has a letter (Gopher)."""
    text = _judged(record)
    if text is None:
        return record
    count = len(text.words) - sum(map(str.isnumeric, text.words))
    return record if count >= value * len(text.words) else f"{count:,} of {len(text.words):,} words have a letter"


@rule(TEXT, value=2, accepts=Count)
def stop_words(record: Record, value: int) -> Verdict:
    """An English text has at least so many of the words be, have, of, that, the, to, with, and (Gopher)."""
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


@rule(TEXT)
def placeholder(record: Record) -> Verdict:
    """Texts with lorem ipsum are left out (C4)."""
    return "it holds lorem ipsum" if "lorem ipsum" in (record.text or "").lower() else record


@rule(TEXT, on=False)
def curly_brackets(record: Record) -> Verdict:
    """Texts with a curly bracket, as programs have it, are left out (C4)."""
    return "it holds a curly bracket" if "{" in (record.text or "") else record


@rule(TEXT, on=False)
def lines_unfinished(record: Record) -> Verdict:
    """Lines that do not end in punctuation are removed (C4); this takes headings, verses and lists."""
    nothing = "no line ends in punctuation"
    return changed_lines(
        record, lambda line: line.rstrip().endswith((".", "!", "?", '"', "”", "。", "！", "？")), nothing
    )


@rule(TEXT, on=False, value=3, accepts=Count)
def lines_few_words(record: Record, value: int) -> Verdict:
    """Lines of fewer words are removed (C4)."""
    return changed_lines(record, lambda line: len(line.split()) >= value, f"no line has {value} words")


@rule(TEXT, on=False, value=3, accepts=Count)
def sentences_few(record: Record, value: int) -> Verdict:
    """A text has at least so many sentences (C4)."""
    found = 0
    for _ in SENTENCE.finditer(record.text or ""):
        found += 1
        if found >= value:
            return record
    return record if found >= value else f"{found:,} sentences"


# --------------------------------------------------------------------------- FineWeb


@rule(TEXT, on=False, value=0.12, accepts=Share)
def lines_finished(record: Record, value: float) -> Verdict:
    """At least this share of the lines ends in punctuation (FineWeb)."""
    lines = text_of(record.text or "").lines
    count = sum(line.endswith(ENDS) for line in lines)
    return record if count >= value * len(lines) else f"{count:,} of {len(lines):,} lines end in punctuation"


@rule(TEXT, on=False, value=0.67, accepts=Share)
def lines_short(record: Record, value: float) -> Verdict:
    """At most this share of the lines has fewer than {SHORT_LINE} characters (FineWeb)."""
    what = f"have fewer than {SHORT_LINE} characters"
    return _few_lines(record, text_of(record.text or ""), value, lambda line: len(line) < SHORT_LINE, what)


@rule(TEXT, on=False, value=0.3, accepts=Amount)
def newlines(record: Record, value: float) -> Verdict:
    """There are at most so many ends of lines for each word (FineWeb)."""
    text = text_of(record.text or "")
    count = text.text.count("\n")
    return record if count <= value * len(text.words) else f"{count:,} ends of lines to {len(text.words):,} words"
