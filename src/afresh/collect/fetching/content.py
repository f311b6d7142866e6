"""What a content is, although servers may be wrong about it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from afresh.collect.extract import MAGIC, TYPES
from afresh.collect.fetching.addresses import path
from afresh.collect.fetching.refused import Refused

START = 1024  # bytes that are looked at
HTML = ("text/html", "application/xhtml+xml")
VAGUE = ("", "text/plain", "application/octet-stream", "binary/octet-stream")  # of which the name says more
MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


def media_type(stated: str, content: bytes) -> str:
    """The media type of a content: HTML if it begins as such and is not said to be plain text, or else what is stated.

    Raises Refused if it is said to be text and is binary.
    """
    kind = stated.partition(";")[0].strip().lower()
    start = content[:START].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if kind not in ("text/plain", "text/markdown") and start.startswith((b"<!doctype html", b"<html")):
        return HTML[0]
    if kind.startswith("text/") or kind in HTML:
        known = content.startswith((*MAGIC, *MARKS))
        if b"\0" in content[:START] and not known:
            raise Refused("content_type", f"the server says {kind}, but it is binary")
    return kind


def charset(stated: str) -> str:
    """The encoding of characters that a header Content-Type states, or nothing."""
    found = CHARSET.search(stated)
    return found[1] if found else ""


def name(address: str, kind: str) -> str:
    """The name of the file at an address, where it says more than its media type."""
    return PurePosixPath(path(address).partition("?")[0]).name if kind in VAGUE or kind not in TYPES else ""


def as_utf8(stated: str, content: bytes) -> bytes:
    """A plain text in UTF-8, if a header says in which other encoding it is."""
    try:
        return content.decode(charset(stated) or "utf-8").encode()
    except (LookupError, UnicodeError):
        return content
