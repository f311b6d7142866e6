"""Words that a person wants in no text, from a file of that person."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Verdict, rule
from afresh.services.collect.rules.text import readable

MOST = 1 << 20  # bytes of a file of words
WORD = re.compile(r"\w+")


@lru_cache(maxsize=1)
def _phrases(listed: str) -> dict[str, list[tuple[str, ...]]]:
    """The words or phrases, each by its first word."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for line in listed.splitlines():
        phrase = tuple(WORD.findall(line))
        found.setdefault(phrase[0], []).append(phrase)
    return found


def _listed(given: str) -> str:
    """The words of a file, or those that were kept from one."""
    if "\n" in given:
        return given
    path = Path(given).expanduser()
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"{path} has more than {MOST:,} bytes. Name a shorter list")
        lines = path.read_text(encoding="utf-8-sig").casefold().splitlines()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}. Name a file with a word or a phrase a line"
        ) from None
    found = sorted({" ".join(line.split()) for line in lines if WORD.search(line) and not line.startswith("#")})
    if not found:
        raise ValueError(f"{path} has no words. Write a word or a phrase a line")
    return "\n".join([*found, ""])


@rule(("text", "conversation"), on=False, accepts=Annotated[str, BeforeValidator(_listed)])
def words(record: Record, value: str) -> Verdict:
    """Texts are left out in which a word or a phrase of your own file occurs, as `words=list.txt` with one a line.
    Lists of words find adult and toxic texts badly: they leave out texts on medicine, and of the groups that are
    insulted, and miss what is said politely. No list is shipped."""
    phrases = _phrases(value)
    written = WORD.findall(readable(record).casefold())
    for i, word in enumerate(written):
        for phrase in phrases.get(word, ()):
            if tuple(written[i : i + len(phrase)]) == phrase:
                return f"it holds {' '.join(phrase)!r}"
    return record
