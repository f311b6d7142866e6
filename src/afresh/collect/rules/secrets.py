"""Passwords, keys and tokens in programs and texts, by the patterns of detect-secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, Literal

from afresh.collect.record import Record
from afresh.collect.rules import Mask, Rule, Verdict
from afresh.collect.rules.spans import COUNT, KINDS, Span, apart, concealed, treated

# Where a secret may be: a long run of the characters of keys, or the name and the password of an address.
CANDIDATE = re.compile(r"(?<![\w+/=.:@~-])[\w+/=.:@~-]{16,}")
BEFORE, LONGEST = 60, 500  # characters of the line before a candidate, and of a candidate, that are searched
KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:\s|\\n|\\r){1,4}[\w-]{1,40}: [^\n]{0,200})*"
    r"(?:(?:\s|\\n|\\r){1,4}[A-Za-z0-9+/=]{20,80})+(?:(?:\s|\\n|\\r){1,4}[A-Za-z0-9+/=]{1,80})?"
    r"(?:(?:\s|\\n|\\r){1,4}-----END [A-Z ]{0,40}-----)?"
)
# Their patterns are any long text, public addresses of the internet (personal.py) and private keys (KEY).
WITHOUT = ("HexHighEntropyString", "Base64HighEntropyString", "IPPublicDetector", "PrivateKeyDetector")
NAMED = ("passw", "pwd", "secret", "token", "api", "key", "auth", "credential")  # for `password = "..."`


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """The patterns of all detectors of detect-secrets that are not left out."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    detectors: list[Any] = list(get_mapping_from_secret_type_to_class().values())
    kept = [d for d in detectors if d.__name__ not in WITHOUT and issubclass(d, RegexBasedDetector)]
    return tuple(pattern for detector in kept for pattern in detector().denylist)


def find(text: str, code: bool = False) -> list[Span]:
    """The secrets in a text. code: whether quoted strings beside names such as `password` count too."""
    spans = [Span(*m.span(), "secret") for m in KEY.finditer(text)] if "PRIVATE KEY" in text else []
    for candidate in CANDIDATE.finditer(text):
        line = text.rfind("\n", 0, candidate.start()) + 1
        start, end = max(line, candidate.start() - BEFORE), min(candidate.end(), candidate.start() + LONGEST)
        if not candidate.group().isalpha():
            spans += _in_window(text[start : end + 1], start)
    if code:
        spans += _named(text)
    return apart(spans)


def _in_window(window: str, start: int) -> Iterator[Span]:
    for pattern in _patterns():
        for m in pattern.finditer(window):
            group = next((i for i in range(1, pattern.groups + 1) if len(m.group(i) or "") > 5), 0)
            span = _trimmed(window, *m.span(group))
            if any(map(str.isdigit, window[slice(*span)])) or "://" in m.group():
                yield Span(start + span[0], start + span[1], "secret")


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space, quotes and signs of assignment around it, which some patterns take in."""
    found = text[start:end]
    start += len(found) - len(found.lstrip(" \t\"'=:"))
    return start, start + len(found.strip(" \t\"'=:"))


def _named(text: str) -> Iterator[Span]:
    """Quoted strings beside names of secrets, unless they look like templates, references or sequences."""
    if not any(name in text.lower() for name in NAMED):
        return
    from detect_secrets.filters import heuristic as h
    from detect_secrets.plugins.keyword import QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP as PATTERNS

    start = 0
    for line in text.split("\n"):
        low = line.lower() if len(line) <= LONGEST else ""
        if ("'" in low or '"' in low) and any(name in low for name in NAMED):
            for pattern, group in PATTERNS.items():
                for m in pattern.finditer(line):
                    secret = m.group(group)
                    untold = h.is_templated_secret(secret) or h.is_sequential_string(secret)
                    if not untold and not h.is_not_alphanumeric_string(secret) and not h.is_indirect_reference(line):
                        yield Span(start + m.start(group), start + m.end(group), "secret")
        start += len(line) + 1


def secrets(record: Record, value: str) -> Verdict:
    return treated(record, value, "found", partial(find, code=record.kind == "code"))


def concealing(value: str) -> Mask | None:
    return None if value == COUNT else lambda record: concealed(record, partial(find, code=record.kind == "code"))


RULES = (
    Rule(
        "secrets",
        "Private keys, tokens and passwords are counted as scores, by the patterns of detect-secrets without those of "
        "high entropy; in programs, also quoted strings beside names such as password. With `mask`, they become "
        "<secret>; with `drop`, the text is left out.",
        KINDS,
        secrets,
        value=COUNT,
        accepts=Literal["count", "mask", "drop"],
        needs="detect_secrets",
        concealing=concealing,
    ),
)
