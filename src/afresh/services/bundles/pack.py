"""Write a bundle: files, and a signature over their names, sizes and contents."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import JsonValue

from afresh.core import UserError, events
from afresh.core.plural import counted
from afresh.data.storage.files import CANNOT_WRITE, free_bytes, new_file
from afresh.services.bundles.layout import END, SIGNATURE, clash, header, name_fault, padded, padding
from afresh.services.bundles.model_signing import Listed, signed, statement
from afresh.services.provenance.signer import signer

CHUNK = 1 << 20
File = Path | bytes  # a file of a bundle: where it is, or its content


def pack_folder(folder: Path, target: Path, kind: str, facts: Mapping[str, JsonValue]) -> str:
    """Write the files of a folder into a bundle, signed by this user, and return its SHA-256. What is at `target` is
    replaced. Hidden files are left out, which is said.

    kind: model, adapter, data or work. facts: values of JSON that are signed with it. Raises UserError if the folder
    has no files or something that is none, if a name is not one for every system, or if the bundle cannot be written.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Give the folder whose files are to be packed.", "not_a_folder")
    files: dict[str, File] = {}
    hidden = []
    for place, folders, names in os.walk(folder):
        within = Path(place)
        hidden += [within / n for n in (*folders, *names) if n.startswith(".")]
        folders[:] = sorted(n for n in folders if not n.startswith("."))
        for n in folders:
            if (within / n).is_symlink():
                raise _not_packed(within / n, "it is a symbolic link")
        for n in names:
            if not n.startswith("."):
                name = unicodedata.normalize("NFC", (within / n).relative_to(folder).as_posix())
                if name in files:
                    raise _not_packed(within / n, "its name differs from another one in the form of its letters alone")
                files[name] = within / n
    if hidden:
        listed = ", ".join(str(p.relative_to(folder)) for p in sorted(hidden)[:3])
        events.note(f"left out, because hidden: {listed}{' ...' if len(hidden) > 3 else ''}", "packing")
    return pack_files(files, folder.resolve().name, target, kind, facts)


def pack_files(files: Mapping[str, File], name: str, target: Path, kind: str, facts: Mapping[str, JsonValue]) -> str:
    """Write files by their names into a bundle, as `pack_folder` does those of a folder of this name."""
    if not files:
        raise UserError(f"There are no files for {target} in {name}.", "empty_bundle")
    for one in files:
        if (why := name_fault(one)) is not None:
            raise _not_packed(one, f"{why}. Rename it")
    if (two := clash(files)) is not None:
        raise _not_packed(two[1], f"it and {two[0]} are one file on some systems. Rename one of them")
    ordered = dict(sorted(files.items()))
    listed = tuple(_listed(n, f) for n, f in ordered.items())
    total = sum(one.size for one in listed)
    said = statement(name, kind, dict(facts), listed)
    signature = signed(said, signer())
    try:
        return _written(ordered, listed, total, signature, target)
    except OSError as error:
        raise UserError(
            f"The bundle cannot be written to {target}: {error.strerror or error}. It needs {total:,} bytes; "
            f"{free_bytes(target.parent):,} are free. Make room or choose another place.",
            CANNOT_WRITE,
        ) from error


def _written(files: Mapping[str, File], listed: tuple[Listed, ...], total: int, signature: bytes, target: Path) -> str:
    whole, done = hashlib.sha256(), 0
    with new_file(target) as stream:

        def write(data: bytes) -> None:
            whole.update(data)
            stream.write(data)

        write(header(SIGNATURE, len(signature)) + padded(signature))
        for one in listed:
            write(header(one.name, one.size))
            digest = hashlib.sha256()
            with _opened(files[one.name]) as content:
                while chunk := content.read(CHUNK):
                    digest.update(chunk)
                    write(chunk)
            if digest.hexdigest() != one.sha256:
                raise UserError(
                    f"{one.name} changed while it was packed. Pack again when nothing writes to it.", "changed"
                )
            write(bytes(padding(one.size)))
            done += one.size
            if total > 1 << 28:
                events.advance(f"written: {done:,} of {counted(total, 'byte')}", "packing", done, total)
        write(END)
    return whole.hexdigest()


def _listed(name: str, file: File) -> Listed:
    with _opened(file) as content:
        digest = hashlib.file_digest(content, "sha256")  # type: ignore[arg-type]  # which typeshed wants narrower
        return Listed(name=name, sha256=digest.hexdigest(), size=content.seek(0, os.SEEK_END))


@contextmanager
def _opened(file: File) -> Iterator[BinaryIO]:
    """A stream over a file of a bundle, following no link. Raises UserError if it is not a regular file."""
    if isinstance(file, bytes):
        yield io.BytesIO(file)
        return
    try:
        if file.is_symlink():
            raise _not_packed(file, "it is a symbolic link")
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise _not_packed(file, "it is not a regular file")
            yield stream
    except OSError as error:
        if error.filename is None:  # of what is written meanwhile
            raise
        raise _not_packed(file, f"it cannot be read: {error.strerror or error}") from error


def _not_packed(name: Path | str, why: str) -> UserError:
    return UserError(f"{name} cannot be packed: {why}.", "not_packed")
