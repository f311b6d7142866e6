"""What a content is, although servers may be wrong about it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from afresh.services.collect.extract import MAGIC, TYPES
from afresh.services.collect.fetching.addresses import path
from afresh.services.collect.fetching.refused import RefusedAddress

START = 1024  # bytes that are looked at
HTML = ("text/html", "application/xhtml+xml")
VAGUE = ("", "text/plain", "application/octet-stream", "binary/octet-stream")  # of which the name says more
MARKS = (b"\xff\xfe", b"\xfe\xff")  # byte order marks of UTF-16
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
# Encodings that pages are in. Python knows others, which are no encodings of pages and may take long to decode.
ENCODINGS = re.compile(
    r"utf-16(le|be)?|(us-)?ascii|latin-?1|iso-?8859-\d{1,2}|windows-(125\d|874|31j)|cp125\d|koi8-[ru]|macintosh"
    r"|(x-)?(shift[_-]jis|sjis)|euc-(jp|kr)|iso-2022-(jp|kr)|gb2312|gbk|gb18030|big5(-hkscs)?|tis-620"
)
LABELS = {"iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "us-ascii": "cp1252", "x-sjis": "shift_jis"}


def media_type(stated: str, content: bytes) -> str:
    """The media type of a content: by its first bytes, HTML if it begins as such and is not said to be plain text, or
    else what is stated.

    Raises Refused if it is said to be text and is binary.
    """
    kind = stated.partition(";")[0].strip().lower()
    suffix = next((suffix for start, suffix in MAGIC.items() if content.startswith(start)), None)
    if suffix is not None:
        return next((t for t, s in TYPES.items() if s == suffix), kind)
    start = content[:START].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if kind not in ("text/plain", "text/markdown") and start.startswith((b"<!doctype html", b"<html")):
        return HTML[0]
    is_text = kind.startswith("text/") or kind in HTML
    if is_text and b"\0" in content[:START] and not content.startswith(MARKS):
        raise RefusedAddress("content_type", f"the server says {kind}, but it is binary")
    return kind


def name(address: str, kind: str) -> str:
    """The name of the file at an address, where it says more than its media type."""
    return PurePosixPath(path(address).partition("?")[0]).name if kind in VAGUE or kind not in TYPES else ""


def as_utf8(stated: str, content: bytes) -> bytes:
    """A text in UTF-8: by its byte order mark, or else as a header or its own `meta` element says. Texts that are valid
    UTF-8 stay as they are, whatever is said of them; so do those of which nothing true is said."""
    encodings = [CHARSET.search(stated), CHARSET.search(content[:START].decode("latin-1"))]
    marked = "utf-16" if content.startswith(MARKS) else ""
    for encoding in (marked, *(found[1].lower() for found in encodings if found)):
        if not ENCODINGS.fullmatch(encoding) or _is_utf8(content):
            continue
        try:
            return content.decode(LABELS.get(encoding, encoding)).encode()
        except (LookupError, UnicodeError):
            continue
    return content


def _is_utf8(content: bytes) -> bool:
    """Whether a text cannot well be in another encoding. Those of seven bits switch by the character of escape."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\x1b" not in content
