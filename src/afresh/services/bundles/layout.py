"""How a bundle lies on the disk: an uncompressed tar (POSIX.1-2001) in which nothing is left to choose.

A tar and not a ZIP, because it has one list of its files where a ZIP has two (the central directory, and a header
before each file), of which readers believe one or the other, and because it is read once from its start to its end. It
is not compressed: weights hardly shrink, and what is not decompressed cannot grow.

The first file is the signature, whose statement lists the names, sizes and SHA-256 of all others in their order.
So every byte of the bundle is determined by the signature: a reader does not parse the other headers, it computes them
and compares. There are no links, no devices, no times, no owners. Headers are written here and not by `tarfile`, of
which no version promises the same bytes as another; every program that reads tars reads them.
"""

from __future__ import annotations

import re

from afresh.services.bundles.names import SIGNATURE

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
    """The size of the signature by the first block of a bundle; None if that is no bundle."""
    stated = re.fullmatch(rb"([0-7]{11})\0", block[124:136])
    size = int(stated[1], 8) if stated else 0
    return size if size and block == header(SIGNATURE, size) else None
