"""The forms of tokens that services give out: a beginning of its own, and what follows it.

From the services' documentation and the list of gitleaks (https://github.com/gitleaks/gitleaks, MIT, July 2026), but
for forms that are told only by the name of the service near them. Every repetition is bounded, so that a search takes
time in proportion to the length of the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("tokens.json").read_text(encoding="utf-8"))
FORMS: Mapping[str, str] = {start: form for form, starts in TABLE["forms"].items() for start in starts.split()}
# Those that begin with nothing of their own, by what must occur in the text.
OTHERS: tuple[tuple[str, str], ...] = tuple((must, pattern) for must, pattern in TABLE["others"])


WORDS = frozenset(("sk-", "cio", "SG.", "sl.", "secret_", "LTAI", "AKID", "EAAA", "hvs.", "gldt-", "glrt-", "pul-"))


@cache
def _patterns() -> tuple[dict[str, re.Pattern[str]], dict[str, re.Pattern[str]]]:
    return (
        {start: re.compile(re.escape(start) + rest) for start, rest in FORMS.items()},
        {must: re.compile(pattern) for must, pattern in OTHERS},
    )


def tokens(text: str) -> Iterator[tuple[int, int]]:
    """Where tokens begin and end. What begins like a word, and has no digit, is one."""
    formed, others = _patterns()
    for start, pattern in formed.items():
        at = text.find(start)
        while at >= 0:
            m = None if at and text[at - 1].isascii() and text[at - 1].isalnum() else pattern.match(text, at)
            if m and (start not in WORDS or any(map(str.isdigit, m.group()[len(start) :]))):
                yield m.span()
            at = text.find(start, m.end() if m else at + 1)
    for must, pattern in others.items():
        if must in text:
            yield from (m.span() for m in pattern.finditer(text))
