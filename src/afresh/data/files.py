"""Paths to files, archives and text. Every file that cannot be used is reported with the reason."""

from __future__ import annotations

import errno
import io
import lzma
import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from gzip import BadGzipFile, GzipFile
from pathlib import Path, PurePosixPath
from typing import IO

from afresh.core import Refused, UserError
from afresh.core.memory import available_memory

MB = 1 << 20
PER_VALUE = 64  # bytes of an object of Python, and of a reference to it
EMPTY, UNREADABLE = "empty file (0 bytes)", "cannot be read"  # reasons; details are appended to the second
NOT_REGULAR = "not a regular file (a device, pipe or socket)"
BECAME_A_LINK = "it became a symbolic link, or was moved out of the folder, while the folder was read"
NESTED_ARCHIVE = "an archive in a folder: give the path of the archive itself, or unpack it"  # another reason
JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})  # created by operating systems


# Names of files that are about the data rather than part of it.
ABOUT = frozenset({"readme", "license", "licence", "copying", "notice", "source", "sources", "citation", "changelog"})


class FileError(Exception):
    """One file cannot be used. The message is the reason, for its owner."""


@dataclass(frozen=True)
class DataFile:
    """A regular file: its path, its name relative to the root (with slashes) and its size in bytes.

    root: the folder in which it was found; None for one that the user named, which may be a link.
    """

    path: Path
    name: str
    size: int
    root: Path | None = None

    @property
    def suffix(self) -> str:
        """In lower case, with the dot."""
        return self.path.suffix.lower()


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, without that of a compression (.gz or .zst)."""
    return PurePosixPath(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix


def walk(
    path: Path, leave_out: Callable[[str, bool], str | None] = lambda name, folder: None
) -> tuple[list[DataFile], list[Refused]]:
    """All files below a folder (or the file itself), sorted by name, and the inputs that are not used.

    Left out are hidden files and folders (a leading dot), symbolic links (a link out of the folder could include
    anything; the target of a link within it is read anyway), empty files, devices, pipes and unreadable files.
    `leave_out(relative name, is folder)` may return another reason; a folder left out counts as one input. Raises
    UserError if the path does not exist or cannot be read, or if the folder is empty.
    """
    must_exist(path)
    if path.is_file():
        size = path.stat().st_size
        if size == 0:
            raise UserError(f"{path} is empty (0 bytes). Give a file that contains your data.")
        if not os.access(path, os.R_OK):
            raise UserError(f"{path} cannot be read: permission denied.")
        return [DataFile(path, path.name, size)], []
    files: list[DataFile] = []
    refused: list[Refused] = []
    pending = [path]
    entries = 0
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as scan:
                listing = list(scan)
        except OSError as error:
            if folder == path:
                raise UserError(f"Cannot read the folder {path}: {error.strerror}.") from None
            refused.append(Refused(_relative(folder, path), f"folder cannot be read: {error.strerror}"))
            continue
        entries += len(listing)
        for entry in listing:
            name = _relative(Path(entry.path), path)
            is_folder = entry.is_dir(follow_symlinks=False)
            reason = _exclusion_reason(entry, path) or leave_out(name, is_folder)
            if reason is not None:
                damaged = reason == EMPTY or reason.startswith(UNREADABLE)
                refused.append(Refused(name + "/" if is_folder else name, reason, damaged=damaged))
            elif is_folder:
                pending.append(Path(entry.path))
            else:
                files.append(DataFile(Path(entry.path), name, entry.stat(follow_symlinks=False).st_size, path))
    if not entries:
        raise UserError(f"The folder {path} is empty. Give a folder that contains your data.")
    return sorted(files, key=lambda f: f.name), sorted(refused, key=lambda r: r.source)


def check_links(folder: Path, what: str) -> None:
    """Raises UserError if a symbolic link in a folder leads out of it, or if something is neither file nor folder.

    `what` the folder is, as "run": one that may come from anybody, and into which is written.
    """
    root = folder.resolve()
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in (*folders, *files)):
            if path.is_symlink():
                target = path.resolve()
                if not target.is_relative_to(root):
                    raise UserError(
                        f"{path} is a link to {target}. Links are not followed out of a {what}: put a copy in its "
                        "place, or remove it.",
                        f"link_out_of_{what.replace(' ', '_')}",
                        path=str(path),
                    )
            elif not path.is_file() and not path.is_dir():
                raise UserError(f"{path} is neither a file nor a folder. Remove it from the {what}.", "not_a_file")


def describes_data(name: str) -> bool:
    """Whether a file with this name is about the data rather than part of it, as README.md is."""
    path = PurePosixPath(name.lower().removesuffix(".gz"))
    return path.name.split(".")[0] in ABOUT and path.suffix in (".md", ".rst", ".txt", "")


def must_exist(path: Path) -> None:
    """Raise UserError for a path that is neither a file nor a folder; opening a pipe would wait for its other end."""
    if not path.exists():
        what = "is a broken symbolic link" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {what}. Give the path of your data: a file or a folder.")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is neither a file nor a folder but a device, pipe or socket. Give a file or a folder.")


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix())


def printable(name: str) -> str:
    """A name with escapes for its bytes that are not UTF-8, so that every message, report and table can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def _exclusion_reason(entry: os.DirEntry[str], root: Path) -> str | None:
    """Why an entry of a folder is never used by any modality, or None."""
    if entry.name.startswith("."):
        return "hidden (its name begins with a dot)"
    if entry.name in JUNK:
        return "created by an operating system"
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))  # unlike Path.resolve, without an error for links in a circle
        if not Path(entry.path).exists():
            return "broken symbolic link"
        if not target.is_relative_to(root.resolve()):
            return f"symbolic link that leads out of the folder, to {target}: copy the file into the folder"
        return "symbolic link within the folder: its target is read anyway"
    if entry.is_dir(follow_symlinks=False):
        return None
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"
    if not stat.S_ISREG(state.st_mode):
        return NOT_REGULAR
    if state.st_size == 0:
        return EMPTY
    if not os.access(entry.path, os.R_OK):
        return f"{UNREADABLE}: permission denied"
    return None


# --------------------------------------------------------------------------- text


def decode_text(raw: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark. Line ends are not changed.

    Raises FileError for UTF-16, UTF-32, binary content (a zero byte) and invalid UTF-8, with the position.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileError("UTF-16 or UTF-32, not UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    zero = raw.find(b"\0")
    if zero >= 0:
        raise FileError(f"binary: a zero byte at byte {zero:,}")
    try:
        return raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        lead = len(raw) - len(raw.removeprefix(b"\xef\xbb\xbf"))
        at = error.start + lead
        line = raw.count(b"\n", 0, at) + 1
        raise FileError(
            f"invalid UTF-8 at byte {at:,} (line {line:,}, 0x{raw[at]:02x}): convert it to UTF-8, "
            "for example iconv -f LATIN1 -t UTF-8"
        ) from None


def check_memory(needed: float) -> None:
    """Raise FileError if decoding a file needs more memory than is free."""
    free = available_memory()
    if free is not None and needed > free:
        raise FileError(f"needs about {needed / MB:,.0f} MB of memory, and {free / MB:,.0f} MB are free: split it")


def check_values(text: str) -> None:
    """`check_memory` for a table (JSON, CSV or TSV), every value of which becomes an object of Python."""
    check_memory(3 * len(text) + PER_VALUE * sum(text.count(mark) for mark in (",", "\t", "{", "[")))


def too_large(size: int, max_mb: int) -> str:
    """The reason for refusing a file of `size` bytes."""
    return f"{size / MB:,.0f} MB, but at most {max_mb:,} MB are read: split it, or raise `data.max_file_mb`"


# --------------------------------------------------------------------------- opening

Given = Path | DataFile  # a file that the user named, or one that was found in a folder
# Where a system has them: neither wait for the other end of a pipe, nor follow a link that the name has become.
WAIT_FOR_NOTHING, NO_LINK = getattr(os, "O_NONBLOCK", 0), getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)


def open_file(file: Given) -> io.BufferedReader:
    """Open a regular file for reading, never waiting for the other end of a pipe.

    One that was found in a folder is opened only if it still is what was found there: neither its name nor a folder
    above it has become a link out of the folder. Raises FileError.
    """
    path, root = (file.path, file.root) if isinstance(file, DataFile) else (file, None)
    try:
        descriptor = os.open(path, os.O_RDONLY | BINARY | WAIT_FOR_NOTHING | (0 if root is None else NO_LINK))
    except FileNotFoundError:
        raise FileError("there is no such file") from None
    except OSError as error:
        link = error.errno == errno.ELOOP and root is not None
        raise FileError(BECAME_A_LINK if link else f"{UNREADABLE}: {error.strerror}") from None
    mode = os.fstat(descriptor).st_mode
    reason = None if stat.S_ISREG(mode) else "a folder, not a file" if stat.S_ISDIR(mode) else NOT_REGULAR
    if root is not None and not _place(descriptor, path).is_relative_to(os.path.realpath(root)):
        reason = BECAME_A_LINK
    if reason is not None:
        os.close(descriptor)
        raise FileError(reason)
    return os.fdopen(descriptor, "rb")


def _place(descriptor: int, path: Path) -> Path:
    """Where an open file is: by the system where it says so, and otherwise by its path."""
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return Path(os.path.realpath(path))


def mapped(file: Given) -> mmap.mmap:
    """A file as memory, which is released when nothing refers to it. Raises FileError, and OSError or ValueError for
    what cannot be mapped, such as an empty file."""
    with open_file(file) as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def open_plain(file: DataFile) -> IO[bytes]:
    """Open a file for reading, decompressed if its name ends in .gz or .zst. Raises FileError."""
    return unpacked(open_file(file), file.suffix)


def unpacked(stream: io.BufferedReader, suffix: str) -> IO[bytes]:
    """What a stream of a file with this suffix holds, decompressed; it is closed with the result."""
    if suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(stream, "zstd"))
    if suffix != ".gz":
        return stream
    plain = GzipFile(fileobj=stream)
    plain.myfileobj = stream  # type: ignore[assignment]  # which is closed with it
    return plain  # type: ignore[return-value]


def read_bytes(file: DataFile, max_mb: int) -> bytes:
    """The content of a file, decompressed. At most `max_mb` MB are held in memory.

    Raises FileError if the file is larger (before or after decompression), damaged or unreadable.
    """
    if file.size > max_mb * MB:
        raise FileError(too_large(file.size, max_mb))
    try:
        with open_plain(file) as stream:
            raw = stream.read(max_mb * MB + 1)
    except (BadGzipFile, EOFError, zlib.error) as error:
        raise FileError(f"damaged .gz: {error}") from None
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror or error}") from None
    if len(raw) > max_mb * MB:
        raise FileError(f"more than {max_mb:,} MB when decompressed: raise `data.max_file_mb`")
    return raw


def read_usable(
    files: Iterable[DataFile], refusal: Callable[[DataFile], str | None], max_mb: int, refused: list[Refused]
) -> Iterator[tuple[DataFile, bytes]]:
    """(file, content) of the files for which `refusal` returns no reason and which can be read. The others are appended
    to `refused`."""
    for file in files:
        reason, content = refusal(file), b""
        try:
            content = content if reason else read_bytes(file, max_mb)
        except FileError as error:
            reason = str(error)
        if reason:
            refused.append(Refused(file.name, reason))
        else:
            yield file, content


def matching_pattern(name: str, patterns: Sequence[str]) -> str | None:
    """The first pattern that matches a relative name, one of its parent folders, or the last part of either."""
    path = PurePosixPath(name)
    names = {*path.parts, *(p.as_posix() for p in (path, *path.parents[:-1]))}
    return next((p for p in patterns if any(fnmatchcase(n, p.rstrip("/")) for n in names)), None)


# --------------------------------------------------------------------------- archives


# What the library raises for damage, beside its own errors.
NOT_AN_ARCHIVE = (EOFError, OSError, ValueError, NotImplementedError, RuntimeError, LookupError, struct.error)


@dataclass(frozen=True)
class ZipLimits:
    """Limits on the content of an archive. They protect against decompression bombs."""

    members: int = 1_000_000
    member_bytes: int = 512 * MB
    total_bytes: int = 4096 * MB
    ratio: float = 200.0  # decompressed size of a member divided by its compressed size
    ratio_from: int = MB  # members smaller than this may have any ratio;
    total_from: int = 64 * MB  # but if all together are larger than this, they have that ratio at most together


def read_zip(
    file: Given, suffixes: Collection[str] = (), limits: ZipLimits = ZipLimits()
) -> tuple[Iterator[tuple[str, bytes]], list[Refused]]:
    """Members of an archive as (name, content), sorted by name, and the list of members that are refused.

    Nothing is written to disk. Refused are absolute names, `..`, drive letters, symbolic links, members that are
    encrypted, repeated, hidden, empty or exceed `limits`, and those whose suffix (lower case, with the dot) is not in
    `suffixes`, if any are given. The list is extended while the iterator runs, because damage is detected on reading.
    Raises UserError if the file is not an archive, or exceeds the limits on total size or number of members.
    """
    refused: list[Refused] = []
    path = path_of(file)
    infos = zip_files(file)
    if len(infos) > limits.members:
        raise UserError(f"{path} has {len(infos):,} members; at most {limits.members:,} are read. Unpack it yourself.")
    accepted: list[zipfile.ZipInfo] = []
    names: set[str] = set()
    for info in sorted(infos, key=lambda i: i.filename):
        reason = member_refusal(info, suffixes, limits)
        if reason is None and info.filename in names:
            reason = "its name occurs twice in the archive"
        if reason is None:
            names.add(info.filename)
            accepted.append(info)
        else:
            refused.append(Refused(f"{path.name}: {info.filename}", reason, damaged=reason == EMPTY))
    total = sum(i.file_size for i in accepted)
    if total > limits.total_bytes:
        raise UserError(
            f"{path} would unpack to {total / MB:,.0f} MB; at most {limits.total_bytes / MB:,.0f} MB are read "
            "from an archive. Unpack it yourself if you trust it."
        )
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
    if total > limits.total_from and total > limits.ratio * size:
        raise UserError(
            f"{path} would unpack to {total / max(1, size):,.0f} times its size (at most {limits.ratio:,.0f}): a "
            "decompression bomb. Unpack it yourself if you trust it."
        )
    return _members(file, accepted, refused), refused


def named(path: Path) -> DataFile:
    """A file that the user named."""
    return DataFile(path, path.name, path.stat().st_size)


def path_of(file: Given) -> Path:
    return file.path if isinstance(file, DataFile) else file


def zip_files(file: Given) -> list[zipfile.ZipInfo]:
    """The members that are files. Raises UserError if the archive cannot be read."""
    path = path_of(file)
    must_exist(path)
    try:
        with open_file(file) as stream, zipfile.ZipFile(stream) as archive:
            return [i for i in archive.infolist() if not i.is_dir()]
    except (FileError, zipfile.BadZipFile, *NOT_AN_ARCHIVE) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is not a .zip archive that can be read: {reason}.") from None


def zip_names(file: Given) -> list[str]:
    """Names of the files in an archive, except hidden ones. Empty if the archive cannot be read."""
    try:
        return [i.filename for i in zip_files(file) if not is_hidden(i.filename)]
    except UserError:
        return []


def is_hidden(name: str) -> bool:
    """Whether a relative name, or a folder that it lies in, is hidden or was created by an operating system."""
    return any(p.startswith(".") or p in JUNK for p in PurePosixPath(name).parts)


def _members(file: Given, accepted: list[zipfile.ZipInfo], refused: list[Refused]) -> Iterator[tuple[str, bytes]]:
    path = path_of(file)
    with open_file(file) as opened, zipfile.ZipFile(opened) as archive:
        for info in accepted:
            try:
                with archive.open(info) as stream:
                    content = stream.read(info.file_size + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, *NOT_AN_ARCHIVE) as error:
                refused.append(Refused(f"{path.name}: {info.filename}", f"damaged: {error}", damaged=True))
                continue
            if len(content) != info.file_size:
                reason = "its size differs from what the archive declares"
                refused.append(Refused(f"{path.name}: {info.filename}", reason, damaged=True))
                continue
            yield info.filename, content


def name_exclusion_reason(member: str) -> str | None:
    """Why a member of an archive is left out for its name, or None."""
    name = PurePosixPath(member.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts and ":" in name.parts[0]):
        return "its name leads out of the archive"
    return "hidden, or created by an operating system" if is_hidden(member) else None


def member_refusal(info: zipfile.ZipInfo, suffixes: Collection[str], limits: ZipLimits) -> str | None:
    """Why a member of an archive is not read, as `read_zip` has it, or None."""
    if stat.S_ISLNK(info.external_attr >> 16):
        return "symbolic link"
    if (reason := name_exclusion_reason(info.filename)) is not None:
        return reason
    name = PurePosixPath(info.filename)
    if info.flag_bits & 1:
        return "encrypted"
    if suffixes and name.suffix.lower() not in suffixes:
        return f"unsupported file type ({name.suffix or 'no suffix'})"
    if info.file_size == 0:
        return EMPTY
    if info.file_size > limits.member_bytes:
        return f"{info.file_size / MB:,.0f} MB when decompressed; at most {limits.member_bytes / MB:,.0f} MB are read"
    if info.file_size > limits.ratio_from and info.file_size > limits.ratio * info.compress_size:
        ratio = info.file_size / max(1, info.compress_size)
        return f"unpacks to {ratio:,.0f} times its size (at most {limits.ratio:,.0f}): a decompression bomb"
    return None
