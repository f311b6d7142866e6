"""Members of .tar archives, also compressed ones, one at a time and within limits. Nothing is written to disk."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self, cast

from afresh.core import Refused
from afresh.data.files import (
    EMPTY,
    MB,
    FileError,
    Given,
    ZipLimits,
    name_exclusion_reason,
    open_file,
    path_of,
    printable,
    unpacked,
)
from afresh.data.limits import Limits, Meter, parsing

BLOCK = 512  # bytes; an archive ends with blocks of zeros
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
SECONDS = 300.0  # of the processor for one archive
MOST_EXTENDED = 64 << 10  # bytes of a header that extends the next one; the library needs their square for some
NAME = 200  # characters of a name in a reason
EXTENDED = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Header(tarfile.TarInfo):
    """A header whose sizes are looked at before the library reads or skips what they declare."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Raises FileError for a size that no header of an honest archive has."""
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0:
            raise FileError("damaged archive: a member of a negative size")
        if header.type in EXTENDED and header.size > MOST_EXTENDED:
            raise FileError(f"a header of {header.size:,} bytes, but at most {MOST_EXTENDED:,} are read: unpack it")
        return header


def is_tar(name: str) -> bool:
    """Whether a file is such an archive by its name."""
    return name.lower().endswith(SUFFIXES)


def members(stream: Any, mode: str, end: float, meter: Meter) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The archive in a stream, which is open while the generator runs, and each of its members in their order.

    mode: of `tarfile.open`. end: bytes of an archive, after which no member may end. Raises FileError for damage and
    for what exceeds a limit.
    """
    place = 0
    with parsing("archive"), tarfile.open(fileobj=stream, mode=mode, tarinfo=_Header) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members.clear()  # which the library would keep, a million of them
            meter.add(items=1)
            meter.check_time()
            if archive.offset <= place:
                raise FileError(f"damaged archive: {printable(member.name)[:NAME]} has a negative size")
            yield archive, member
            place = archive.offset
            if place > end:  # the library would skip what is not there, for ever
                raise FileError(f"{printable(member.name)[:NAME]} would end beyond byte {end:,}, where reading ends")


class _Bounded(io.RawIOBase):
    """A stream that ends with an error when more was unpacked than an archive may hold."""

    def __init__(self, stream: IO[bytes], size: int, limits: ZipLimits, meter: Meter) -> None:
        self.stream, self.size, self.limits, self.meter = stream, size, limits, meter
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self.stream.read(size)
        self.meter.add(bytes=len(found))
        self.tail = (self.tail + found)[-BLOCK:]
        total = self.meter.bytes
        if total > self.limits.total_from and total > self.limits.ratio * self.size:
            raise FileError(f"it unpacks to more than {self.limits.ratio:,.0f} times its size: a decompression bomb")
        return found


def _unpacked(stream: io.BufferedReader, name: str) -> IO[bytes]:
    if name.endswith(".bz2"):
        return cast("IO[bytes]", bz2.open(stream))
    if name.endswith(".xz"):
        return cast("IO[bytes]", lzma.open(stream))
    return unpacked(stream, ".gz" if name.endswith("gz") else Path(name).suffix)


def read_tar(file: Given, limits: ZipLimits = ZipLimits()) -> Iterator[tuple[str, bytes] | Refused]:
    """(name, content) of the members in the order of the archive, and those that are refused.

    Refused are links, devices, sparse members, absolute names, `..`, and what is repeated, hidden, empty or exceeds
    `limits`. Raises FileError if the archive is damaged or unpacks to too much; what came before is good.
    """
    names: set[str] = set()
    path = path_of(file)
    meter = Meter(Limits(limits.total_bytes, limits.members, SECONDS))
    with parsing("archive"), open_file(file) as packed, _unpacked(packed, path.name.lower()) as stream:
        bounded: Any = _Bounded(stream, os.fstat(packed.fileno()).st_size, limits, meter)
        for archive, member in members(bounded, "r|", limits.total_bytes, meter):
            if member.isdir():
                continue
            reason = _reason(member, names, limits)
            if reason is not None:
                with meter.paused():
                    yield Refused(f"{path.name}: {printable(member.name)}", reason, damaged=reason == EMPTY)
                continue
            names.add(member.name)
            inside = archive.extractfile(member)
            content = b"" if inside is None else inside.read(member.size)
            if len(content) != member.size:
                raise FileError(f"damaged: {printable(member.name)} is cut off")
            with meter.paused():
                yield printable(member.name), content
        while bounded.read(MB):
            pass
        if bounded.tail.strip(b"\0"):  # which the library does not mind
            raise FileError("damaged: its end is missing")


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
