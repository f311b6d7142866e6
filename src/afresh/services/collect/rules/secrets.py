"""Passwords, keys and tokens in programs and texts: by their forms, by names beside them, and by detect-secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, Literal

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Mask, Verdict, rule
from afresh.services.collect.rules.credentials import credentials
from afresh.services.collect.rules.spans import COUNT, KINDS, Span, apart, concealed, treated
from afresh.services.collect.rules.tokens import tokens

# Where a secret may be: a long run of the characters of keys.
CANDIDATE = re.compile(r"(?<![\w+/=.:@~-])[\w+/=.:@~-]{16,}")
BEFORE, LONGEST = 60, 500  # characters of the line before a candidate, and of a candidate, that are searched
MARK = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
BODY = re.compile(r"[A-Za-z0-9+/=]{20}")
KEY = 20_000  # characters of the longest key between its marks
# What stands between the lines of a key: white space, and what quotes them in a program or a letter.
BETWEEN = r"""(?:[\s"'+,;>|#*\\()]|\\[nr])"""
CUT = re.compile(
    rf"(?:{BETWEEN}{{1,40}}[\w-]{{1,40}}: [^\n\\]{{0,200}}(?=[\n\\]))*(?:{BETWEEN}{{1,40}}[A-Za-z0-9+/=]{{20,4000}})+"
)
# Their patterns are any long text, addresses of the internet (personal.py), private keys (KEY), and what tokens.py and
# credentials.py find more exactly.
WITHOUT = (
    "HexHighEntropyString Base64HighEntropyString IPPublicDetector PrivateKeyDetector BasicAuthDetector "
    "JwtTokenDetector"
)


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """The patterns of all detectors of detect-secrets that are not left out."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    detectors: list[Any] = list(get_mapping_from_secret_type_to_class().values())
    kept = [d for d in detectors if d.__name__ not in WITHOUT.split() and issubclass(d, RegexBasedDetector)]
    return tuple(pattern for detector in kept for pattern in detector().denylist)


def certain(text: str, code: bool = False) -> list[tuple[int, int]]:
    """Where secrets are that are found without detect-secrets: private keys, tokens, and values beside their names."""
    return [*private_keys(text), *tokens(text), *credentials(text, code)]


def find(text: str, code: bool = False) -> list[Span]:
    """The secrets in a text. code: whether words that are not quoted are mostly names, as in a program."""
    places = certain(text, code)
    for candidate in CANDIDATE.finditer(text):
        line = text.rfind("\n", 0, candidate.start()) + 1
        start, end = max(line, candidate.start() - BEFORE), min(candidate.end(), candidate.start() + LONGEST)
        if not candidate.group().isalpha():
            places += _in_window(text[start : end + 1], start)
    return apart(Span(start, end, "secret") for start, end in places)


def private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Where private keys begin and end, quoted ones too; one whose end is missing ends with its last whole line."""
    if "PRIVATE KEY" not in text:
        return
    begun: re.Match[str] | None = None
    for mark in MARK.finditer(text):
        if begun and mark.group(1) == "END" and mark.start() - begun.end() < KEY:
            if BODY.search(text, begun.end(), mark.start()):
                yield begun.start(), mark.end()
            begun = None
            continue
        yield from _cut_off(text, begun, mark.start())
        begun = mark if mark.group(1) == "BEGIN" else None
    yield from _cut_off(text, begun, len(text))


def _cut_off(text: str, begun: re.Match[str] | None, until: int) -> Iterator[tuple[int, int]]:
    """A key without an end, up to the next mark."""
    if begun and (rest := CUT.match(text, begun.end(), min(until, begun.end() + KEY))):
        yield begun.start(), rest.end()


def _in_window(window: str, start: int) -> Iterator[tuple[int, int]]:
    for pattern in _patterns():
        for m in pattern.finditer(window):
            group = next((i for i in range(1, pattern.groups + 1) if len(m.group(i) or "") > 5), 0)
            span = _trimmed(window, *m.span(group))
            if any(map(str.isdigit, window[slice(*span)])) or "://" in m.group():
                yield start + span[0], start + span[1]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space, quotes and signs of assignment around it, which some patterns take in."""
    found = text[start:end]
    start += len(found) - len(found.lstrip(" \t\"'=:"))
    return start, start + len(found.strip(" \t\"'=:"))


def concealing(value: str) -> Mask | None:
    return None if value == COUNT else lambda record: concealed(record, partial(find, code=record.kind == "code"))


@rule(KINDS, value=COUNT, accepts=Literal["count", "mask", "drop"], needs="detect_secrets", concealing=concealing)
def secrets(record: Record, value: str) -> Verdict:
    """Private keys, tokens of some ninety services and passwords are counted as scores: by the forms of tokens, by
    the patterns of detect-secrets without those of high entropy, and beside names such as password, in headers and
    in addresses. With `mask`, they become <secret>; with `drop`, the text is left out. Passwords of letters alone
    are not found."""
    return treated(record, value, "found", partial(find, code=record.kind == "code"))
