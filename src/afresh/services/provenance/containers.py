"""Where the manifest of C2PA is in a file (C2PA 2.2, appendix A.3): found by its container, in bounded time and memory.

The library reads some formats into memory as a whole, and walks others for as long as they say, so a file is walked
here first: whatever has no manifest, and whatever is not built as its format says, never gets there.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

MOST_BYTES = 1 << 25  # of a manifest
MOST_PARTS = 1 << 18  # chunks of a file
MOST_JPEG = 1 << 27  # bytes of a JPEG file with a manifest, which the library reads into memory
MOST_WORDS = 1 << 12  # bytes of the name, and of the description, that stand before a manifest in an ID3 tag
MIME = (b"application/c2pa", b"application/x-c2pa-manifest-store")


class ContainerError(ValueError):
    """A file with a manifest that is not built as its format says: the message says why."""


def manifest_in(stream: BinaryIO) -> tuple[str, bytes] | None:
    """The media type of a file, by its first bytes, and its manifest; None if it has none, or is of a format that is
    not looked into. Raises ContainerError."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        media, found = "image/png", _in_chunks(stream, size, png=True)
    elif head[:2] == b"\xff\xd8":
        media, found = "image/jpeg", _in_jpeg(stream, size)
    elif head[:4] == b"RIFF" and head[8:] in (b"WAVE", b"WEBP"):
        media, found = "audio/wav" if head[8:] == b"WAVE" else "image/webp", _in_chunks(stream, size, png=False)
    elif head[:3] == b"ID3" and len(head) >= 10:
        found, flac = _in_id3(stream, size)
        media = "audio/flac" if flac else "audio/mpeg"
    else:
        return None
    return None if found is None else (media, found)


def _read(stream: BinaryIO, count: int, what: str = "its manifest") -> bytes:
    if count > MOST_BYTES:
        raise ContainerError(f"{what} has {count:,} bytes, and at most {MOST_BYTES:,} are read")
    data = stream.read(count)
    if len(data) < count:
        raise ContainerError(f"{what} is cut off")
    return data


def _in_chunks(stream: BinaryIO, size: int, png: bool) -> bytes | None:
    """The chunk caBX of a PNG, or C2PA of a RIFF file."""
    found, place = None, 8 if png else 12
    for _ in range(MOST_PARTS):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            break
        kind, length = (head[4:], int.from_bytes(head[:4], "big")) if png else (
            head[:4], int.from_bytes(head[4:], "little")
        )  # fmt: skip
        if kind == (b"caBX" if png else b"C2PA"):
            if found is not None:
                raise ContainerError("it has two manifests")
            found = _read(stream, length)
            if png and int.from_bytes(_read(stream, 4), "big") != zlib.crc32(kind + found):
                raise ContainerError("the check sum of its manifest is wrong")
        place += 12 + length if png else 8 + length + length % 2
        if (png and kind == b"IEND") or place >= size:
            break
    else:
        raise ContainerError(f"it has more than {MOST_PARTS:,} chunks")
    return found


def _in_jpeg(stream: BinaryIO, size: int) -> bytes | None:
    """The segments APP11 before the picture (ISO/IEC 19566-5): each repeats the length and the type of the box."""
    parts: list[bytes] = []
    first, place, left = b"", 2, MOST_BYTES
    for _ in range(MOST_PARTS):
        stream.seek(place)
        head = stream.read(4)
        length = int.from_bytes(head[2:], "big")
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA) or length < 2:
            break
        segment = _read(stream, length - 2) if head[1] == 0xEB else b""
        if segment[:2] == b"JP" and segment[12:16] == b"jumb":
            first, left = first or segment, left - length
            if b"c2pa" not in first[:64]:
                return None
            if size > MOST_JPEG:
                raise ContainerError(f"JPEG files with a manifest are read up to {MOST_JPEG:,} bytes")
            if left < 0:
                raise ContainerError(f"its manifest has more than {MOST_BYTES:,} bytes")
            number = int.from_bytes(segment[4:8], "big")
            if segment[2:4] != first[2:4] or number != len(parts) + 1 or segment[8:16] != first[8:16]:
                raise ContainerError("the segments of its manifest do not follow each other")
            parts.append(segment[16:])
        place += 2 + length
    else:
        raise ContainerError(f"it has more than {MOST_PARTS:,} segments")
    return first[8:16] + b"".join(parts) if parts else None


def _in_id3(stream: BinaryIO, size: int) -> tuple[bytes | None, bool]:
    """The frame GEOB of an ID3 tag, version 2.3 or 2.4, and whether FLAC follows the tag."""
    stream.seek(0)
    head = stream.read(10)
    version, flags, length = head[3], head[5], _syncsafe(head[6:10])
    stream.seek(10 + length)
    flac = stream.read(4) == b"fLaC"
    stream.seek(10)
    if version not in (3, 4) or 10 + length > size:
        return None, flac
    tag = _read(stream, length, "its ID3 tag")
    if flags & 0x80 and version == 3:
        tag = tag.replace(b"\xff\x00", b"\xff")
    place = 0
    if flags & 0x40:
        place = _syncsafe(tag[:4]) if version == 4 else 4 + int.from_bytes(tag[:4], "big")
    found = None
    for _ in range(MOST_PARTS):
        name, numbers = tag[place : place + 4], tag[place + 4 : place + 8]
        if len(numbers) < 4 or not name.strip(b"\0"):
            break
        count = _syncsafe(numbers) if version == 4 else int.from_bytes(numbers, "big")
        content = tag[place + 10 : place + 10 + count]
        if name == b"GEOB" and content[1:].split(b"\0", 1)[0].lower() in MIME:
            if found is not None:
                raise ContainerError("it has two manifests")
            found = _object_of(content)
        place += 10 + count
    else:
        raise ContainerError(f"its ID3 tag has more than {MOST_PARTS:,} frames")
    return found, flac


def _object_of(content: bytes) -> bytes:
    """The object of a frame GEOB: after the encoding, the media type, a file's name and a description."""
    end = b"\0\0" if content[0] in (1, 2) else b"\0"
    rest = content[1:].partition(b"\0")[2]
    for _ in range(2):
        ends = (place for place in range(0, MOST_WORDS, len(end)) if rest[place : place + len(end)] == end)
        if (place := next(ends, None)) is None:
            raise ContainerError(f"the frame of its manifest is cut off, or says more than {MOST_WORDS:,} bytes first")
        rest = rest[place + len(end) :]
    return rest


def _syncsafe(data: bytes) -> int:
    """A number of seven bits a byte."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number
