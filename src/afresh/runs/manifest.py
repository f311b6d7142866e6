"""RUN/SHA256SUMS: the hash of every file of a run, in the format of sha256sum, so that any change can be found.

The list names files of these parts only: nothing outside of the run is read by it. Checkpoints have
lists of their own (training/checkpoint.py), and the signature is a hash itself. What a command changes
leaves the list before the change and enters it after, so that a command that is killed leaves no wrong hash. Runs of
earlier versions have no list.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.storage.files import json_bytes, replace_file
from afresh.engine.training.weights import BASE, CHOSEN, EARLY, FITTED, HIGHEST, LOWEST
from afresh.runs.run_store import mirrored

FILE = "SHA256SUMS"
RECORD = "run.json"
LABEL = "label.json"  # of a run that came in a bundle: what its maker says of it
# Files and folders in a run, by what writes them: its creation, training, and measuring.
CREATED = (RECORD, "encoder", "codec", "conditions.safetensors", f"{BASE}.safetensors", "reward-model", LABEL)
WITHIN = "within"
FITTED_FOLDER = "fitted"  # what an encoder fits to held-out items after training
STORED = (EARLY, CHOSEN, FITTED, LOWEST, HIGHEST, WITHIN)  # weights, each with a hash beside it
LEARNT = (
    "metrics.jsonl",
    "usage.json",
    "base_answers.safetensors",
    "preserved.safetensors",
    "asked.jsonl",
    "best",
    "samples",
    "adapter",
    FITTED_FOLDER,
    *(f"{name}.{suffix}" for name in STORED for suffix in ("safetensors", "sha256", "json")),
)
REPORTED = ("report.html", "report.json", "card.md", "aligned.json")
PARTS = frozenset((*CREATED, *LEARNT, *REPORTED))


def files_of(folder: Path, parts: Sequence[str]) -> list[str]:
    """The regular files among these parts of a run, without those that a killed command left half-written."""
    found: list[Path] = []
    for part in parts:
        path = folder / part
        found += path.rglob("*") if path.is_dir() else [path]
    files = (p for p in found if p.is_file() and not p.is_symlink() and not re.fullmatch(r"\..*\.tmp", p.name))
    return sorted(p.relative_to(folder).as_posix() for p in files)


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of files in a folder, by name. Raises OSError for a link, a device or the like."""
    out = {}
    for name in names:
        with regular_file(folder / name) as stream:
            out[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return out


def regular_file(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, following no link and waiting for no other end of a pipe. Raises OSError."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return stream


def is_part(name: str) -> bool:
    """Whether this may be the path of a file of a run, within its folder."""
    first, *rest = name.split("/")
    return first in PARTS and all(part not in ("", ".", "..") for part in rest)


def read_manifest(folder: Path) -> dict[str, str] | None:
    """{path in the run: SHA-256}; None if the run has no list. Raises UserError if the list is damaged."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        lines = file.read_bytes().decode("utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise UserError(f"{file} cannot be read: {e}. Restore a copy of it.", "damaged") from None
    found = [re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line) for line in lines]
    sums = {m[2]: m[1] for m in found if m}
    if foreign := [name for name in sums if not is_part(name)]:
        raise UserError(
            f"{file} is damaged: {foreign[0]} is not a file that a run consists of. Restore a copy of it.", "damaged"
        )
    if not all(found) or RECORD not in sums:
        raise UserError(f"{file} is damaged: it does not list hashes with {RECORD}. Restore a copy of it.", "damaged")
    return sums


def write_manifest(folder: Path, sums: dict[str, str]) -> None:
    replace_file(folder / FILE, "".join(f"{v}  {k}\n" for k, v in sorted(sums.items())).encode())


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Complete a new run: the list of what it consists of, and then run.json. Raises UserError if one of them cannot be
    written."""
    data = json_bytes(record)
    sums = hashes(folder, files_of(folder, CREATED))
    write_manifest(folder, sums | {RECORD: hashlib.sha256(data).hexdigest()})
    replace_file(folder / RECORD, data)


@contextmanager
def changing(folder: Path, parts: Sequence[str]) -> Iterator[None]:
    """Change these parts of a run in the block, also where it is mirrored. Without a list of hashes, which a run of an
    earlier version lacks, none is made: the other parts may have changed."""
    with mirrored(folder), _relisted(folder, parts):
        yield


@contextmanager
def _relisted(folder: Path, parts: Sequence[str]) -> Iterator[None]:
    if (sums := read_manifest(folder)) is None:
        yield
        return
    before = set(files_of(folder, parts)) | {k for k in sums if k.split("/")[0] in parts}
    sums = {k: v for k, v in sums.items() if k not in before}
    if RECORD in parts:
        (folder / FILE).unlink()
    else:
        write_manifest(folder, sums)
    try:
        yield
    except BaseException:
        with suppress(UserError, OSError):  # the error of the block is the one to be told
            _enter(folder, parts, sums)
        raise
    _enter(folder, parts, sums)


def _enter(folder: Path, parts: Sequence[str], sums: dict[str, str]) -> None:
    write_manifest(folder, sums | hashes(folder, files_of(folder, parts)))


def manifest_faults(folder: Path) -> list[str]:
    """What differs from the list of hashes: files that are missing, changed, or not in it. Empty without a list."""
    if (sums := read_manifest(folder)) is None:
        return []
    faults = []
    for name, wanted in sums.items():
        try:
            same = hashes(folder, [name])[name] == wanted
        except OSError as e:
            faults.append(f"{name} cannot be read: {e.strerror or e}")
            continue
        if not same:
            faults.append(f"{name} does not match {FILE}: one of them was changed or is damaged")
    ended = any(name.split("/")[0] in LEARNT for name in sums)  # else training goes on, or was killed
    present = files_of(folder, (*CREATED, *LEARNT) if ended else CREATED)
    faults += [f"{name} is not in {FILE}: it was added later" for name in present if name not in sums]
    return faults
