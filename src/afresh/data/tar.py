"""Members of .tar archives, also compressed ones, one at a time and within limits. Nothing is written to disk."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from afresh.core import Refused
from afresh.data.files import EMPTY, MB, FileError, ZipLimits, name_exclusion_reason, open_plain_path

BLOCK = 512  # bytes; an archive ends with blocks of zeros
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError)


def is_tar(name: str) -> bool:
    """Whether a file is such an archive by its name."""
    return name.lower().endswith(SUFFIXES)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error when more was unpacked than an archive may hold."""

    def __init__(self, stream: IO[bytes], size: int, limits: ZipLimits) -> None:
        self.stream, self.size, self.limits, self.total = stream, size, limits, 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self.stream.read(size)
        self.total += len(found)
        self.tail = (self.tail + found)[-BLOCK:]
        if self.total > self.limits.total_bytes:
            raise FileError(f"it unpacks to more than {self.limits.total_bytes / MB:,.0f} MB: unpack it yourself")
        if self.total > self.limits.total_from and self.total > self.limits.ratio * self.size:
            raise FileError(f"it unpacks to more than {self.limits.ratio:,.0f} times its size: a decompression bomb")
        return found


def _open(path: Path) -> IO[bytes]:
    name = path.name.lower()
    if name.endswith(".bz2"):
        return cast("IO[bytes]", bz2.open(path))
    if name.endswith(".xz"):
        return cast("IO[bytes]", lzma.open(path))
    return open_plain_path(path, ".gz" if name.endswith("gz") else path.suffix.lower())


def read_tar(path: Path, limits: ZipLimits = ZipLimits()) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of the members in the order of the archive, and those that are refused.

    Refused are links, devices, sparse members, absolute names, `..`, and what is repeated, hidden, empty or exceeds
    `limits`. Raises FileError if the archive is damaged or unpacks to too much; what came before is good.
    """
    names: set[str] = set()
    try:
        bounded: Any = _Bounded(_open(path), path.stat().st_size, limits)
        with bounded.stream, tarfile.open(fileobj=bounded, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= limits.members:
                    raise FileError(f"it has more than {limits.members:,} members: unpack it yourself")
                if member.isdir():
                    continue
                reason = _reason(member, names, limits)
                if reason is not None:
                    yield Refused(f"{path.name}: {member.name}", reason, damaged=reason == EMPTY)
                    continue
                names.add(member.name)
                inside = archive.extractfile(member)
                content = b"" if inside is None else inside.read(member.size)
                if len(content) != member.size:
                    raise FileError(f"damaged: {member.name} is cut off")
                yield member.name, content
            while bounded.read(MB):
                pass
            if bounded.tail.strip(b"\0"):  # which the library does not mind
                raise FileError("damaged: its end is missing")
    except FileError:
        raise
    except DAMAGED as error:
        raise FileError(f"damaged archive: {error or type(error).__name__}") from None


def _reason(member: tarfile.TarInfo, names: set[str], limits: ZipLimits) -> str | None:
    if (reason := name_exclusion_reason(member.name)) is not None:
        return reason
    if member.issym() or member.islnk():
        return "symbolic link" if member.issym() else "link"
    if not member.isreg() or member.issparse():
        return "not a regular file (a device, pipe or sparse file)"
    if member.name in names:
        return "its name occurs twice in the archive"
    if member.size > limits.member_bytes:
        return f"{member.size / MB:,.0f} MB; at most {limits.member_bytes / MB:,.0f} MB are read"
    return EMPTY if member.size == 0 else None
