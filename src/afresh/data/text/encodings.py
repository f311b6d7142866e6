"""Bytes of a text file to text: UTF-8, an encoding that the user names, or one that is guessed and reported."""

from __future__ import annotations

import codecs
import re
from collections import defaultdict

from afresh.data.files import FileError, decode_text

# Guessed encodings. Where two explain the bytes equally well, the earlier one is taken.
GUESSED = (
    *("cp1252", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1251", "koi8_r", "cp1250", "iso8859_2"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "cp850", "mac_roman"),
)
# Letters and marks beyond ASCII that texts of Western Europe have; a few bytes of others say too little for statistics.
WESTERN = frozenset("äöüßÄÖÜéèêëÉÈàâáçÇñôóòîïíìûúùœæøåÆØÅ€£°µ§²³«»„“”‘’–…·\xa0".encode("cp1252"))
SAMPLE = 1 << 18  # bytes that a guess is based on
MARKED = {  # byte order marks; that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextDecoder:
    """Decodes the files of one collection, and remembers which of them are not UTF-8."""

    def __init__(self, encoding: str | None = None) -> None:
        """`encoding`: of all files; None to guess it for each file that is not UTF-8."""
        self.encoding = encoding
        self.guessed: dict[str, list[str]] = defaultdict(list)  # encoding -> names of files

    def decode(self, name: str, raw: bytes) -> str:
        """The text of a file. Raises FileError if it is not text, or not in the encoding that the user named."""
        if self.encoding is not None:
            return _decoded(raw, self.encoding)
        try:
            return decode_text(raw)
        except FileError as error:
            encoding = guess_encoding(raw)
            if encoding is None:
                raise error
        text = _decoded(raw, encoding)
        self.guessed[encoding].append(name)
        return text

    def notes(self) -> list[str]:
        """Which encodings were guessed, and how to name another."""
        return [
            f"{len(names):,} file{'s are' if len(names) > 1 else ' is'} not UTF-8 and read as {encoding}, a guess from "
            f"the bytes: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}. If letters are wrong, name the "
            "encoding: `data.encoding=NAME`"
            for encoding, names in self.guessed.items()
        ]


def guess_encoding(raw: bytes) -> str | None:
    """The likeliest encoding of bytes that are not UTF-8; None for what is binary, and for UTF-8 with damage."""
    marked = next((encoding for mark, encoding in MARKED.items() if raw.startswith(mark)), None)
    if marked is not None or b"\0" in raw:
        return marked
    text = raw[:SAMPLE].decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    if sum(c > "\x7f" for c in text) - damaged > damaged:  # mostly UTF-8: any other encoding would garble the rest
        return None
    if _is_western(raw[:SAMPLE]):
        return "cp1252"
    from charset_normalizer import from_bytes

    sample = raw[:SAMPLE]
    sample = sample[: sample.rfind(b"\n") + 1 or len(sample)]  # a character of several bytes is not cut
    ranks = {encoding: rank for rank, encoding in enumerate(GUESSED)}
    matches = from_bytes(sample, cp_isolation=list(GUESSED))
    best = matches.best()
    if best is None:
        return None
    equal = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    return min((e for m in equal for e in m.could_be_from_charset), key=lambda e: ranks.get(e, len(ranks)))


def _is_western(raw: bytes) -> bool:
    """Whether the bytes beyond ASCII stand alone or in pairs, as in no text in other letters, and are usual ones."""
    runs = re.findall(rb"[\x80-\xff]+", raw)
    total = sum(map(len, runs))
    usual = sum(byte in WESTERN for run in runs for byte in run)
    return total > 0 and sum(len(run) for run in runs if len(run) <= 2) >= 0.9 * total and usual >= 0.9 * total


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
