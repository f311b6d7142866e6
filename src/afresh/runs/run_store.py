"""Runs that live in a store: a local copy is worked with, and mirrored.

In the store, a run is a list, `afresh.json`, of its files with their sizes and hashes, and the files, each under its
path with the start of its hash: a file is never changed there, so what the list names is whole. New files are uploaded
first, then the list, and then what is no longer named is removed. A reader takes the list, and refuses a file whose
hash differs.

The local copy is STORES/ID/NAME, where ID is the hash of the address, with `copy.json` beside it: what of it is
known to be in the store. A copy with something that is not is never removed or replaced.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from afresh.core import UserError, events
from afresh.data.preferences import preferences
from afresh.data.storage.files import bytes_on_disk, replace_file
from afresh.data.storage.object_store import ObjectStore, address_of, is_address

INDEX, COPY, PROBE = "afresh.json", "copy.json", "afresh-writable"
TRIES = 3  # to read a run that is being changed
MOST_BYTES = 1 << 50
GROWING = ".jsonl"  # a log, to which lines are added
LOCAL_ONLY = re.compile(r"\..*|.*\.tmp")  # locks, and what is written aside
CONFLICT = "store_changed"  # the codes of errors
DAMAGED = "store_damaged"


class StoredFile(BaseModel):
    """A file of a run, by the path of it in the run's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MOST_BYTES)


RelativePath = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*(/[^/\\\x00-\x1f.][^/\\\x00-\x1f]*)*$")]


class Index(BaseModel):
    """The files of a run in a store."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = Field(1, ge=1, le=1)
    files: dict[RelativePath, StoredFile] = {}


class Copy(BaseModel):
    """What is known of a local copy. `index` is that of the store when they were last the same; None before.

    `pending`: the copy may have what the store lacks. `uploaded`: the names of what is there and that no index names.
    `stamps`: the time of a file when it had this size and hash.
    """

    model_config = ConfigDict(extra="forbid")
    address: str
    index: Index | None = None
    pending: bool = False
    used: float = 0.0
    uploaded: set[str] = set()
    stamps: dict[str, tuple[int, StoredFile]] = {}


def object_name(path: str, file: StoredFile) -> str:
    """The name in the store of one state of a file."""
    return f"{path}.{file.sha256[:16]}"


# --------------------------------------------------------------------------- the local copy


def copy_place(address: str) -> Path:
    """The folder of the local copy of a run."""
    address = address_of(address)
    name = re.sub(r"[^\w.-]", "_", address.rpartition("/")[2]).lstrip(".") or "run"
    return preferences().stores_folder / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def read_copy(folder: Path) -> Copy | None:
    """What is known of a local copy; None if this folder is none. Raises UserError if it is damaged."""
    file = folder.parent / COPY
    if folder.parent.parent.resolve() != preferences().stores_folder.resolve() or not file.is_file():
        return None
    try:
        return Copy.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as e:
        raise UserError(
            f"{file} is damaged ({type(e).__name__}). If the run in {folder} is not needed, or is whole in the store, "
            f"remove {folder.parent}.",
            DAMAGED,
        ) from None


def write_copy(folder: Path, known: Copy) -> None:
    known.used = time.time()
    replace_file(folder.parent / COPY, known.model_dump_json().encode())


def new_copy(address: str, force: bool) -> Path:
    """The local folder of a new run that is to live in a store, which can be written. Raises UserError if a run is
    there, unless it is to be replaced (`force`), and if the store does not take what is written."""
    address, folder = address_of(address), copy_place(address)
    store = ObjectStore(address)
    index = read_index(store)
    if index is not None and not force:
        raise UserError(
            f"{address} already holds a run. Resume it: `afresh.resume({address!r})`; replace it: `force=True`; or "
            "choose another output: `out=ADDRESS`.",
            "output_is_run",
            path=address,
        )
    store.write(PROBE, b"")  # before any minutes are spent
    store.remove(PROBE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    known = read_copy(folder)
    unsaved = known is not None and known.pending and (folder / "run.json").exists()
    if not unsaved:
        shutil.rmtree(folder, ignore_errors=True)
    if force or not unsaved:  # otherwise the folder holds a run, which is an error of its own (runs/output_dir.py)
        write_copy(folder, Copy(address=address, index=index, pending=True))
    events.note(f"The run will be in {address}. Until it is uploaded, what is new is in {folder}.", "store")
    return folder


def local_copy(address: str) -> Path:
    """The folder of a local copy of a run that is up to date. Raises UserError if there is no such run, a file of it is
    damaged, and if both the copy and the store have changed."""
    address, folder = address_of(address), copy_place(address)
    store, known = ObjectStore(address), read_copy(folder) or Copy(address=address)
    for _ in range(TRIES):
        index = read_index(store)
        if known.pending and (folder / "run.json").exists():
            if index != known.index:
                raise conflict(address, folder)
            write_copy(folder, known)
            return folder
        if index is None or "run.json" not in index.files:
            raise UserError(f"No run at {address}: it has no {INDEX}. Correct the address.", "not_a_run")
        if update(store, folder, known, index):
            make_room(folder)
            return folder
    raise UserError(
        f"{address} is changed all the time, or lacks files that its {INDEX} names. Try again; if that does not help, "
        "restore a copy of it.",
        DAMAGED,
    )


def update(store: ObjectStore, folder: Path, known: Copy, index: Index) -> bool:
    """Make a local copy what an index lists. Whether the store had every file."""
    old = {} if known.index is None else known.index.files
    here = {path for path, file in index.files.items() if old.get(path) == file and (folder / path).is_file()}
    known.index = Index(files={path: index.files[path] for path in here})  # also if this is the last that is done
    write_copy(folder, known)
    for path, file in index.files.items():
        if path in here:
            continue
        aside = (folder / path).with_name(f".{Path(path).name}.tmp")
        try:
            if not store.download(object_name(path, file), aside, file.bytes):
                return False
            check_content(store, path, file, aside)
            aside.replace(folder / path)
        finally:
            aside.unlink(missing_ok=True)
    for path in files_in(folder) - index.files.keys():
        (folder / path).unlink()
    for empty in sorted((p for p in folder.rglob("*") if p.is_dir() and not any(p.iterdir())), reverse=True):
        empty.rmdir()
    times = {path: (folder / path).stat().st_mtime_ns for path in index.files}
    known.index, known.stamps = index, {path: (times[path], file) for path, file in index.files.items()}
    write_copy(folder, known)
    return True


def check_content(store: ObjectStore, path: str, file: StoredFile, aside: Path) -> None:
    """Raises UserError unless what was downloaded is what the index lists."""
    if hash_of(aside) != file:
        raise UserError(
            f"{store.address}/{object_name(path, file)} is damaged or cut short: it has {aside.stat().st_size:,} of "
            f"{file.bytes:,} bytes, or others. Nothing was changed here. Try again; if that does not help, restore a "
            "copy of it.",
            DAMAGED,
        )


def make_room(keep: Path) -> None:
    """Remove the copies that were used longest ago, until the rest is within the bound. One that may have what the
    store lacks stays."""
    copies = []
    for file in preferences().stores_folder.glob(f"*/{COPY}"):
        folder = copy_place(known.address) if (known := read_copy(file.parent / "any")) else None
        if known is not None and folder is not None and folder != keep:
            copies.append((known.used, bytes_on_disk(file.parent), known.pending, file.parent))
    total = bytes_on_disk(keep) + sum(size for _, size, _, _ in copies)
    for _, size, pending, place in sorted(copies):
        if total > preferences().stores_bytes and not pending:
            shutil.rmtree(place, ignore_errors=True)
            total -= size


# --------------------------------------------------------------------------- the store


def read_index(store: ObjectStore) -> Index | None:
    """The list of a run's files; None without a run. Raises UserError if it is damaged."""
    content = store.read(INDEX)
    try:
        return None if content is None else Index.model_validate_json(content)
    except ValidationError:
        raise UserError(
            f"{store.address}/{INDEX} is damaged, or of a newer version. Restore a copy of it, or update afresh.",
            DAMAGED,
        ) from None


def conflict(address: str, folder: Path) -> UserError:
    return UserError(
        f"{address} was changed by another process, and the copy in {folder} has what is not in the store. Nothing was "
        "overwritten. Keep the copy: move it to another place, and use it there. Then the store's is used.",
        CONFLICT,
        path=str(folder),
    )


def upload(folder: Path, final: bool = True) -> bool:
    """Bring the store up to date with a local copy; nothing for any other folder. Whether all was quiet enough: while
    training writes (not `final`), nothing is uploaded if files keep changing.

    Raises UserError if the store does not take it, and if another process has changed the run there.
    """
    known = read_copy(folder)
    if known is None:
        return True
    store = ObjectStore(known.address)
    before = Index() if known.index is None else known.index
    if (read_index(store) or Index()) != before:
        raise conflict(known.address, folder)
    files = upload_files(store, folder, known, before)
    if files is None:
        if final:
            raise UserError(
                f"The files in {folder} are changed all the time, so that they cannot be uploaded.", CONFLICT
            )
        return False
    index = Index(files=files)
    if index != before:
        store.write(INDEX, index.model_dump_json(indent=1).encode())
        named = {object_name(p, f) for p, f in index.files.items()}
        for name in ({object_name(p, f) for p, f in before.files.items()} | known.uploaded) - named:
            store.remove(name)
    known.index, known.uploaded, known.pending = index, set(), not final
    write_copy(folder, known)
    return True


def upload_files(store: ObjectStore, folder: Path, known: Copy, before: Index) -> dict[str, StoredFile] | None:
    """Upload what the store lacks of a local copy. The files of one moment, all of which are there; None if they keep
    changing."""
    there = known.uploaded | {object_name(p, f) for p, f in before.files.items()}
    for _ in range(TRIES):
        files, whole = hashed(folder, known), True
        for path, file in files.items():
            if (name := object_name(path, file)) not in there:
                if upload_file(store, folder, path, file):
                    there.add(name)
                    known.uploaded.add(name)
                    write_copy(folder, known)
                else:
                    whole = False
        if whole and settled(hashed(folder, known)) == settled(files):
            return files
    return None


def upload_file(store: ObjectStore, folder: Path, path: str, file: StoredFile) -> bool:
    """Upload one state of a file. Whether the file still has it; lines may have been added to a log."""
    if not path.endswith(GROWING):
        store.upload(folder / path, object_name(path, file))
        return True
    with (folder / path).open("rb") as stream:
        content = stream.read(file.bytes)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        return False
    store.write(object_name(path, file), content)
    store.check_arrived(object_name(path, file), len(content))
    return True


def settled(files: Mapping[str, StoredFile]) -> dict[str, StoredFile]:
    """Those that training does not add lines to."""
    return {path: file for path, file in files.items() if not path.endswith(GROWING)}


def hashed(folder: Path, known: Copy) -> dict[str, StoredFile]:
    """The files of a local copy with their hashes; those of before, where the size and the time are those of before."""
    files = {}
    for path in sorted(files_in(folder)):
        try:
            status = (folder / path).stat()
            time_then, file = known.stamps.get(path, (-1, None))
            if file is None or (time_then, file.bytes) != (status.st_mtime_ns, status.st_size):
                file = hash_of(folder / path)
        except FileNotFoundError:  # removed meanwhile
            continue
        known.stamps[path] = status.st_mtime_ns, file
        files[path] = file
    return files


def hash_of(file: Path) -> StoredFile:
    with file.open("rb") as stream:
        return StoredFile(sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=stream.tell())


def files_in(folder: Path) -> set[str]:
    """The paths of a run's files in its folder, without locks and what is written aside."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {p.as_posix() for p in found if not any(LOCAL_ONLY.fullmatch(part) for part in p.parts)}


@contextmanager
def mirrored(folder: Path) -> Iterator[None]:
    """Change a run in the block, and then the store, if it lives in one. If the block fails, what it left is uploaded
    all the same, where that is possible.

    Raises UserError, which says where the run is, if the store does not take it.
    """
    known = read_copy(folder)
    if known is None:
        yield
        return
    known.pending = True
    write_copy(folder, known)
    try:
        yield
    except BaseException:
        try:
            upload(folder)
        except UserError as error:
            events.warning(f"{error} {kept_here(folder, known.address)}")
        raise
    try:
        upload(folder)
        events.detail(f"store: {known.address} has everything that is in {folder}", "stored", address=known.address)
    except UserError as error:
        raise UserError(f"{error} {kept_here(folder, known.address)}", error.code, path=str(folder)) from error


def upload_checkpoint(folder: Path) -> None:
    """Bring the store up to date with a run whose checkpoint is complete, while training goes on. A store that does not
    take it is tried again with the next one."""
    try:
        upload(folder.parent.parent, final=False)
    except UserError as error:
        if error.code == CONFLICT:
            raise
        events.warning(f"{error} Training goes on; the next checkpoint is uploaded with what is missing.")


def kept_here(folder: Path, address: str) -> str:
    return f"Nothing is lost: the run is in {folder}, and `afresh.resume({address!r})` uploads it."


def place(folder: Path) -> str:
    """What people call a run: the address of what lives in a store, otherwise its folder."""
    known = read_copy(folder)
    return str(folder) if known is None else known.address


def opened(path: str | Path) -> Path:
    """The folder of a run: a path as it is, or the local copy of what lives at an address."""
    return local_copy(str(path)) if is_address(path) else Path(path)
