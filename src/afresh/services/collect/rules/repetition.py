"""Texts that repeat themselves: the rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1).

A phrase is a run of n words without the punctuation between them; small and capital letters are the same. Repeated
counts the second and each later occurrence, and no character twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache, partial
from operator import itemgetter

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Rule, Share, Verdict, declared
from afresh.services.collect.rules.text import text_of

FEW = 50  # words; a shorter text may repeat itself
MOST = 100_000  # words that are judged, from the beginning: as many as Gopher's longest texts have
PAIR = 2  # words
SHORTEST = 5  # words of a phrase of which all repetitions count


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts equal an earlier one, and how many characters they have."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


def _share(record: Record, what: str, value: float, characters: bool) -> Verdict:
    text = text_of(record.text or "")
    if len(text.words) < FEW and text.alphabetic:
        return record
    parts = text.lines if what == "lines" else text.paragraphs
    repeated = _repeated(parts)[characters]
    whole = sum(map(len, parts)) if characters else len(parts)
    if repeated <= value * whole:
        return record
    return f"{repeated:,} of {whole:,} {f'characters of {what}' if characters else what} are repeated"


class Phrases:
    """The phrases of a text that occur more than once."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.lengths = [len(word) for word in words]
        self.characters, self.longest = sum(self.lengths), max(self.lengths)
        self.repeated = cache(self._repeated)
        self.most_frequent = cache(self._most_frequent)

    def _of(self, n: int) -> Iterator[tuple[str, ...]]:
        return zip(*(self.words[i:] for i in range(n)), strict=False)

    def _most_frequent(self, n: int) -> tuple[tuple[str, ...], int]:
        """The phrase of n words that occurs most, the first of those that occur equally often."""
        return max(Counter(self._of(n)).items(), key=itemgetter(1))

    def _repeated(self, n: int) -> float:
        """The share of the characters that are in phrases of n words that occurred before."""
        phrases = list(self._of(n))
        if len(set(phrases)) == len(phrases):
            return 0.0
        seen: set[tuple[str, ...]] = set()
        end = inside = 0  # words before `end` are counted
        for start, phrase in enumerate(phrases):
            if phrase in seen:
                inside += sum(self.lengths[max(start, end) : start + n])
                end = start + n
            else:
                seen.add(phrase)
        return inside / self.characters


@lru_cache(maxsize=1)
def _phrases(text: str) -> Phrases | None:
    """The phrases of a text that is long enough to be judged; None for another."""
    parts = text_of(text)
    return Phrases([w.lower() for w in parts.words[:MOST]]) if parts.alphabetic and len(parts.words) >= FEW else None


def frequent_phrase(record: Record, value: float, n: int) -> Verdict:
    """Whether the most frequent phrase of n words has more than a share of the characters of all words."""
    phrases = _phrases(record.text or "")
    if phrases is None:
        return record
    # No phrase occurs more often than the most frequent pair of words: most need not be counted.
    if n > PAIR and phrases.most_frequent(PAIR)[1] * n * phrases.longest <= value * phrases.characters:
        return record
    phrase, count = phrases.most_frequent(n)
    share = count * sum(map(len, phrase)) / phrases.characters
    return record if share <= value or count == 1 else f"{' '.join(phrase)[:60]!r} occurs {count:,} times, {share:.0%}"


def repeated_phrases(record: Record, value: float, n: int) -> Verdict:
    """Whether phrases of n words that occurred before have more than a share of the characters of all words."""
    phrases = _phrases(record.text or "")
    # The words of a repeated phrase are in shorter ones that are repeated too, so that the share never grows with n.
    if phrases is None or any(phrases.repeated(shorter) <= value for shorter in range(SHORTEST, n + 1)):
        return record
    return f"{phrases.repeated(n):.0%} of it repeats phrases of {n} words"


def _declare(name: str, about: str, judge: Callable[..., Verdict], value: float) -> None:
    about = f"At most this share of {about} (Gopher). Texts of fewer than {FEW} words are not judged."
    declared[__name__].append(Rule(name, about, ("text",), judge, True, value, Share))


for characters, value in ((False, 0.3), (True, 0.2)):
    for what in ("line", "paragraph"):
        name = f"repeated_{what}_characters" if characters else f"repeated_{what}s"
        about = f"characters is in {what}s that equal" if characters else f"{what}s equals"
        judge = partial(_share, what=f"{what}s", characters=characters)
        _declare(name, f"the {about} an earlier one", judge, value)
for n, value in ((2, 0.2), (3, 0.18), (4, 0.16)):
    about = f"the characters of all words is in the most frequent phrase of {n} words"
    _declare(f"frequent_{n}_words", about, partial(frequent_phrase, n=n), value)
for n, value in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)):
    about = f"the characters of all words is in phrases of {n} words that occurred before"
    _declare(f"repeated_{n}_words", about, partial(repeated_phrases, n=n), value)
