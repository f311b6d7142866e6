"""Bytes of text files to text: UTF-8, an encoding that the user names, or one that is guessed and reported.

It is guessed for all files of a folder together: a file alone may have too few letters beyond ASCII to tell.
"""

from __future__ import annotations

import codecs
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from afresh.core.plural import counted
from afresh.data.files import FileError, decode_text
from afresh.data.text.plausibility import JAPANESE, LEVELS, plausibility

# Guessed encodings, with the standard of East Asian ones. Of those that are as plausible, the first is taken.
GUESSED = {
    **dict.fromkeys(("cp1252", "iso8859_15"), ""),
    **dict.fromkeys(("cp932", "euc_jp"), JAPANESE),
    "cp949": "euc_kr",
    "gb18030": "gb2312",
    "big5": "big5",
    **dict.fromkeys(("cp1251", "koi8_r", "koi8_u", "cp866", "cp1250", "iso8859_2", "cp1253", "cp1254"), ""),
    **dict.fromkeys(("cp1255", "cp1256", "cp850", "cp852", "mac_roman"), ""),
}
SAMPLE = 1 << 18  # bytes of a file in which letters are looked for
JUDGED = 1 << 13  # bytes of lines with letters beyond ASCII that a guess is based on
LEAST = 0.6  # plausibility below which bytes are no text in an encoding
SHORT, MOST = 1 << 7, 1 << 8  # bytes of a file, and files, that are judged together at least and at most
FEW = 20  # bytes beyond ASCII of a file below which it is read as the others are
PAIRS = 0.9  # share of ideographs that could be two letters of ASCII, from which they are
HIGH = 0.6  # least share of zero bytes of UTF-16 that are the high ones of characters
SLACK = 0.15  # by how much a file may be less plausible in the encoding of the others than in another
NEAR = 0.01  # a difference between two encodings that tells nothing
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
MARKED = {  # byte order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Waiting(Exception):
    """A file is not UTF-8, and its encoding is guessed when all files have been seen (`TextDecoder.decide`)."""


class TextDecoder:
    """Decodes the files of one collection, and remembers which of them are not UTF-8."""

    def __init__(self, encoding: str | None = None, together: bool = False) -> None:
        """`encoding`: of all files; None to guess it for those that are not UTF-8: for each of them alone, or for all
        of them `together`, which raises `Waiting` for them until `decide` is called."""
        self.encoding, self.together = encoding, together
        self.waiting: dict[str, bytes] = {}  # names of files -> their lines with letters beyond ASCII
        self.chosen: dict[str, str | None] | None = None
        self.guessed: dict[str, list[str]] = defaultdict(list)  # encoding -> names of files

    def decode(self, name: str, raw: bytes) -> str:
        """The text of a file. Raises FileError if it is not text, or not in the encoding that the user named."""
        if self.encoding is not None:
            return _decoded(raw, self.encoding)
        try:
            return decode_text(raw)
        except FileError as error:
            encoding = self._guess(name, raw)
            if encoding is None:
                raise error
        text = _decoded(raw, encoding)
        self.guessed[encoding].append(name)
        return text

    def decide(self) -> None:
        """Guess the encodings of the files that wait."""
        self.chosen = dict(common_encodings(self.waiting))

    def _guess(self, name: str, raw: bytes) -> str | None:
        if not self.together or not may_be_guessed(raw):
            return guess_encoding(raw)
        if self.chosen is None:
            self.waiting[name] = judged(raw)
            raise Waiting
        return self.chosen.get(name) or guess_encoding(raw)

    def notes(self) -> list[str]:
        """Which encodings were guessed, and how to name another."""
        return [_note(encoding, names, self.together) for encoding, names in self.guessed.items()]


def _note(encoding: str, names: Sequence[str], together: bool) -> str:
    one = len(names) == 1
    basis = "the bytes of all of them together" if together and not one else "the bytes"
    return (
        f"{counted(len(names), 'file')} {'is' if one else 'are'} not UTF-8 and read as {encoding}, a guess from "
        f"{basis}: "
        f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}. If letters are wrong, name the encoding: "
        "`data.encoding=NAME`"
    )


def guess_encoding(raw: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8; None for what is binary, and for UTF-8 with damage."""
    marked = next((encoding for mark, encoding in MARKED.items() if raw.startswith(mark)), None)
    if marked is not None:
        return marked
    if b"\0" in raw:
        return unmarked_utf_16(raw)
    return dict(common_encodings({"": judged(raw)}))[""] if may_be_guessed(raw) else None


def unmarked_utf_16(raw: bytes) -> str | None:
    """UTF-16 without a byte order mark, if the bytes are text in it."""
    sample = raw[: SAMPLE & ~1]
    for encoding, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        if sample[high::2].count(0) < HIGH * sample.count(0):  # the high byte of ASCII
            continue
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(sample)
        except UnicodeError:
            continue
        signs = "".join(re.findall(r"[\u3400-\u9fff]+", text))
        pairs = sum(0x20 <= ord(c) & 0xFF < 0x7F and ord(c) < 0x7F00 for c in signs)  # of two letters of ASCII
        if signs and pairs >= PAIRS * len(signs):
            continue
        worth, count = max(plausibility(text[:JUDGED], standard) for standard in ("", *LEVELS))
        if not CONTROLS.search(text) and worth >= LEAST * count:
            return encoding
    return None


def may_be_guessed(raw: bytes) -> bool:
    """Whether bytes are neither UTF-16, nor binary, nor UTF-8 with damage, which another encoding would garble."""
    if b"\0" in raw or raw.startswith(tuple(MARKED)):
        return False
    text = raw[:SAMPLE].decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(c > "\x7f" for c in text) - damaged <= damaged


def judged(raw: bytes) -> bytes:
    """The first lines with bytes beyond ASCII, up to JUDGED bytes."""
    out = b""
    for line in re.finditer(rb"[^\n]*[\x80-\xff][^\n]*", raw):
        out += line[0] + b"\n"
        if len(out) > JUDGED:
            break
    return out[:JUDGED]


def common_encodings(samples: Mapping[str, bytes]) -> dict[str, str | None]:
    """The encoding of each file that its lines are from: the one that explains most of the files, then the one that
    explains most of those that are left; None for what is text in none."""
    found: dict[str, str | None] = {}
    scores = {name: {e: score([raw], e) for e in GUESSED} for name, raw in samples.items()}
    while scores:
        share = JUDGED // len(scores)
        together = {e: score([samples[n][: max(share, SHORT)] for n in list(scores)[:MOST]], e) for e in GUESSED}
        totals = {e: sum(s[e] for s in scores.values()) / len(scores) + together[e] for e in GUESSED}
        best = next(e for e in GUESSED if totals[e] >= max(totals.values()) - NEAR)
        explained = [n for n, s in scores.items() if s[best] >= max(LEAST, max(s.values()) - SLACK)]
        if explained:  # too few letters tell nothing of their own
            explained += [n for n, s in scores.items() if s[best] > 0 and sum(b > 0x7F for b in samples[n]) < FEW]
        for name in dict.fromkeys(explained or list(scores)):
            found[name] = best if explained else None
            del scores[name]
    return found


def score(parts: Sequence[bytes], encoding: str) -> float:
    """How plausible lines of files are in an encoding, which may end inside a character: from 0 to 1."""
    try:
        text = "\n".join(codecs.getincrementaldecoder(encoding)().decode(part) for part in parts)
    except UnicodeError:
        return 0.0
    worth, count = plausibility(text, GUESSED[encoding])
    return 0.0 if CONTROLS.search(text) else worth / max(1, count)


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        at = getattr(error, "start", None)
        where = "" if at is None else f" at byte {at:,}"
        raise FileError(f"not text in the encoding {encoding}{where}: name another, `data.encoding=NAME`") from None


def is_encoding(name: str) -> bool:
    """Whether Python knows an encoding of text by this name."""
    try:
        b"text".decode(name, "replace")
    except LookupError:
        return False
    return True
