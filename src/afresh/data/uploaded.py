"""Data that arrives file by file, as a page sends a folder that was dropped on it.

It is collected in a folder aside, and becomes one that is named after its content once it is complete, among the data
that was written aside (data/imported.py): there it is listed, kept once, and removed by its name. Who has sent
what is noted beside it, so that one sender cannot fill the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from afresh.core import UserError
from afresh.data.imported import data_folder
from afresh.data.storage.files import free_bytes, replace_file
from afresh.data.storage.folders import put_in_place

MOST_BYTES = 16 * 2**30
MOST_FILES = 300_000
MOST_KEPT = 32 * 2**30  # bytes of one sender, of all data that is kept and that is arriving
MOST_ARRIVING = 4  # arrivals of one sender at once
IDLE = 120.0  # seconds without a file after which an arrival makes room for another one
MOST_DEPTH, MOST_NAME = 24, 200  # folders in each other; bytes of a name
SPARE = 2**30  # bytes of the disk that are left free
ASIDE, SENDERS = ".arriving-", ".senders"
STALE = 24 * 3600.0  # seconds after which data that never became complete is removed
TOGETHER = "files"  # the folder of files that came without one


@dataclass(eq=False)
class Arriving:
    """Data that is not complete yet. `most`: bytes that its owner may keep, this data among them; None for any."""

    id: str
    folder: Path
    owner: str = ""
    most: int | None = None
    files: int = 0
    bytes: int = 0
    touched: float = 0.0  # when the last file came, by the clock of `time.monotonic`
    turn: threading.Lock = field(default_factory=threading.Lock)


class Arrivals:
    """What is arriving, by an id that cannot be guessed. Data that was arriving when the process ended is removed by a
    later one."""

    def __init__(self) -> None:
        self.known: dict[str, Arriving] = {}

    def begin(self, owner: str = "", most: int | None = None) -> str:
        """The id of a new arrival. `most`: bytes that this owner may keep in all; None for any number.

        Raises UserError if the owner keeps that much already, if too many of theirs are arriving, or if the folder of
        data cannot be written.
        """
        root, id = data_folder(), secrets.token_hex(16)
        if most is not None and (kept := kept_bytes(owner)) >= most:
            raise too_much_kept(kept, most)
        for old in root.glob(f"{ASIDE}*"):
            if time.time() - old.stat().st_mtime > STALE:
                shutil.rmtree(old, ignore_errors=True)
        self._make_room(owner)
        folder = root / f"{ASIDE}{id}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise cannot_write(root, error) from error
        self.known[id] = Arriving(id, folder, owner, most, touched=time.monotonic())
        return id

    def _make_room(self, owner: str) -> None:
        """End the arrivals of this owner that nothing was added to lately, if there are many. Raises UserError."""
        own = [a for a in list(self.known.values()) if a.owner == owner]
        if len(own) < MOST_ARRIVING:
            return
        idle = [a for a in own if time.monotonic() - a.touched > IDLE]
        if not idle:
            raise UserError(
                f"{len(own)} uploads of yours are arriving, which is as many as are taken at once. Wait until one is "
                "complete. One that was given up makes room after two minutes.",
                "too_many_uploads",
            )
        for arriving in idle:
            self.known.pop(arriving.id, None)
            shutil.rmtree(arriving.folder, ignore_errors=True)

    def of(self, id: str, owner: str = "") -> Arriving:
        """Raises UserError if none exists of this id, or if it is someone else's."""
        found = self.known.get(id)
        if found is None or found.owner != owner:
            raise UserError("These files are not expected any more. Drop them again.", "unknown_upload")
        return found

    def add(self, arriving: Arriving, name: str, offset: int, content: bytes) -> None:
        """Add a file, or the next piece of it, which begins at byte `offset`.

        Raises UserError if the name is not that of a file below a folder, if there is too much, if the piece does not
        follow what is there, or if it cannot be written.
        """
        path = arriving.folder.joinpath(*clean(name))
        with arriving.turn:
            if arriving.bytes + len(content) > MOST_BYTES or arriving.files >= MOST_FILES:
                raise UserError(
                    f"This is more than can be sent through the page: {MOST_FILES:,} files, {MOST_BYTES / 2**30:g} "
                    "GiB. Name the folder on this machine instead, or train in a terminal.",
                    "too_much_data",
                )
            if arriving.most is not None:
                others = [a.bytes for a in list(self.known.values()) if a.owner == arriving.owner]
                kept = kept_bytes(arriving.owner) + sum(others)
                if kept + len(content) > arriving.most:
                    raise too_much_kept(kept, arriving.most)
            if free_bytes(arriving.folder) - len(content) < SPARE:
                raise UserError(
                    f"The disk of {data_folder()} is nearly full. Make room there, or set AFRESH_DATA_FOLDER to "
                    "another folder.",
                    "disk_full",
                )
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                there = path.stat().st_size if path.exists() else 0
                if offset != there:
                    raise UserError(f"{name} did not arrive in order. Drop the files again.", "out_of_order")
                with path.open("ab" if offset else "xb") as stream:
                    stream.write(content)
            except (NotADirectoryError, FileExistsError, IsADirectoryError):
                raise UserError(f"{name} is given twice, or is a file and a folder.", "given_twice") from None
            except OSError as error:
                raise cannot_write(data_folder(), error) from error
            arriving.touched = time.monotonic()
            arriving.files += not offset
            arriving.bytes += len(content)

    def finish(self, arriving: Arriving) -> Path:
        """The path of the complete data: of the one folder or file that was sent, or of a folder of all of them.

        Raises UserError if no file has arrived, or if it cannot be written.
        """
        with arriving.turn:
            self.known.pop(arriving.id, None)
            try:
                tops = list(arriving.folder.iterdir())
                if not arriving.files:
                    raise UserError("No file has arrived. Drop files, or a folder that holds some.", "no_files")
                if len(tops) > 1:
                    (arriving.folder / TOGETHER).mkdir()
                    for top in tops:
                        os.replace(top, arriving.folder / TOGETHER / top.name)
                named = data_folder() / key_of(arriving.folder)
                if not named.exists():
                    put_in_place(arriving.folder, named)
                replace_file(senders(arriving.owner) / named.name, str(arriving.bytes).encode())
                return next(named.iterdir())
            except OSError as error:
                raise cannot_write(data_folder(), error) from error
            finally:
                shutil.rmtree(arriving.folder, ignore_errors=True)


def senders(owner: str) -> Path:
    """The folder of notes on what this owner has sent: the name of each data, and its bytes."""
    return data_folder() / SENDERS / f"of {quote(owner, safe='')}"


def kept_bytes(owner: str) -> int:
    """The bytes of what this owner has sent and what was not removed since."""
    total = 0
    for note in senders(owner).glob("[0-9a-f]" * 24):
        if (data_folder() / note.name).is_dir():
            total += int(note.read_bytes() or b"0")
        else:
            note.unlink(missing_ok=True)
    return total


def too_much_kept(kept: int, most: int) -> UserError:
    return UserError(
        f"You keep {kept / 2**30:.3g} GiB of data here, and may keep {most / 2**30:.3g} GiB. Ask the owner of the "
        "server to remove some (`afresh doctor` lists it, `afresh rm --data NAME` removes it) or to allow more with "
        "`afresh serve --set upload_quota=GIB`.",
        "too_much_data",
    )


def cannot_write(root: Path, error: OSError) -> UserError:
    return UserError(
        f"The files cannot be written into {root}: {error.strerror or error}. {free_bytes(root):,} bytes are free. "
        "Make room there, or set AFRESH_DATA_FOLDER to another folder.",
        "cannot_write",
    )


def clean(name: str) -> list[str]:
    """The parts of a path below a folder. Raises UserError if a part could lead elsewhere or is hidden."""
    parts = name.split("/")
    for part in parts:
        if part in ("", ".", "..") or part.startswith(".") or re.search(r"[\x00-\x1f\x7f\\]", part):
            raise UserError(f"{name!r} is not a name of a file to learn from. Leave it out.", "wrong_name")
        if len(os.fsencode(part)) > MOST_NAME:
            raise UserError(f"{part[:40]!r}... is too long a name. Give it a shorter one.", "wrong_name")
    if len(parts) > MOST_DEPTH:
        raise UserError(f"{name[:80]!r} lies more than {MOST_DEPTH} folders deep. Leave it out.", "wrong_name")
    return parts


def key_of(folder: Path) -> str:
    """What names the folder, by the names and the content of its files."""
    digest = hashlib.sha256(b"uploaded")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f" {path.relative_to(folder)} {content}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]
