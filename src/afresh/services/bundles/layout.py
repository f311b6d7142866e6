"""How a bundle lies on the disk: an uncompressed tar (POSIX.1-2001) in which nothing is left to choose.

A tar and not a ZIP, because it has one list of its files where a ZIP has two (the central directory, and a header
before each file), of which readers believe one or the other, and because it is read once from its start to its end. It
is not compressed: weights hardly shrink, and what is not decompressed cannot grow.

The first file is the signature, whose statement lists the names, sizes and SHA-256 of all others in their order.
So every byte of the bundle is determined by the signature: a reader does not parse the other headers, it computes them
and compares. There are no links, no devices, no times, no owners. Headers are written here and not by `tarfile`, of
which no version promises the same bytes as another; every program that reads tars reads them.

Files in a bundle have plain relative names, which mean the same file on every system.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MOST_BYTES, MOST_PART, MOST_DEPTH = 1_000, 200, 16  # of a name, of each of its parts, and parts
SIGNATURE = "model.sig"  # the first file of a bundle, as `model-signing` names it
ODD = re.compile(r'[\\:*?"<>|]')  # which Windows does not have in names
ODD_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # what is not seen, or changes how the rest is read
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)  # of Windows


def name_fault(name: str) -> str | None:
    """Why this name is invalid for a file in a bundle; None if it is valid."""
    parts = name.split("/")
    if _folded(name) == SIGNATURE:
        return "that is the name of the signature"
    if any(unicodedata.category(c) in ODD_CATEGORIES for c in name) or ODD.search(name):
        return "it has a character that cannot be seen, or that not every system has in names"
    if len(name.encode()) > MOST_BYTES or any(len(p.encode()) > MOST_PART for p in parts) or len(parts) > MOST_DEPTH:
        return f"it is longer than {MOST_BYTES} bytes, {MOST_PART} in each of its parts, or {MOST_DEPTH} parts"
    if any(p in ("", ".", "..") for p in parts):
        return "it leads out of the folder, or is not written in the one way that there is for it"
    if any(p.startswith(".") for p in parts):
        return "it is hidden: it begins with a dot"
    if any(p != p.strip() or p.endswith(".") or DEVICES.fullmatch(p) for p in parts):
        return "Windows has no file of that name"
    if unicodedata.normalize("NFC", name) != name:
        return "its letters are not in the form NFC of Unicode"
    return None


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one file on some system, since they differ in upper and lower case or in the form of their
    letters alone, or because one is a folder of the other; None if there are none."""
    seen: dict[str, str] = {}
    listed = list(names)
    for name in listed:
        if (same := seen.setdefault(_folded(name), name)) is not name:
            return same, name
    for name in listed:
        parts = _folded(name).split("/")
        for count in range(1, len(parts)):
            if (folder := seen.get("/".join(parts[:count]))) is not None:
                return folder, name
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


BLOCK = 512
END = bytes(2 * BLOCK)
LARGEST_OCTAL = 8**11  # bytes of a file, from which on a header has no room for its size
SHORTEST_PAX = 100  # bytes of a name, beyond which a header has no room for it


def header(name: str, size: int) -> bytes:
    """The header of a file: one block, with two or more before it for what it has no room for (a pax header)."""
    more = {}
    if len(name) > SHORTEST_PAX or not name.isascii():
        more["path"] = name
    if size >= LARGEST_OCTAL:
        more["size"] = str(size)
    before = b"".join(_record(key, value) for key, value in sorted(more.items()))
    out = _block("././@PaxHeader", len(before), b"x") + padded(before) if before else b""
    return out + _block(name, size if size < LARGEST_OCTAL else 0, b"0")


def _record(key: str, value: str) -> bytes:
    """ "LENGTH KEY=VALUE\\n", in which LENGTH counts its own digits too."""
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while len(f"{length}") + len(rest) != length:
        length = len(f"{length}") + len(rest)
    return f"{length}".encode() + rest


def _block(name: str, size: int, kind: bytes) -> bytes:
    fields = (
        name.encode("ascii", "replace")[:SHORTEST_PAX].ljust(100, b"\0"),
        b"0000644\0" + 2 * b"0000000\0",  # what its owner may do, and no owner
        b"%011o\0" % size,
        b"%011o\0" % 0,  # no time
        b" " * 8,  # in place of the sum of all bytes
        kind + bytes(100) + b"ustar\x0000",
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padding(size: int) -> int:
    """The zeros after a file of this size."""
    return -size % BLOCK


def padded(data: bytes) -> bytes:
    return data + bytes(padding(len(data)))


def size_of_signature(block: bytes) -> int | None:
    """The size of the signature by the first block of a bundle; None if that is not a bundle."""
    stated = re.fullmatch(rb"([0-7]{11})\0", block[124:136])
    size = int(stated[1], 8) if stated else 0
    return size if size and block == header(SIGNATURE, size) else None
