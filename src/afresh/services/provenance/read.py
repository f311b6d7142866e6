"""Read where a file comes from, offline: every layer that is found, and whether it is still what was signed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from afresh.core import UserError
from afresh.core.results import SIDECAR
from afresh.data.storage.files import readable, start_of
from afresh.services.provenance.formats import can_embed, require_c2pa
from afresh.services.provenance.layers import Layer, Provenance, Status

if TYPE_CHECKING:
    from afresh.services.provenance.trusted import Trusted


def read(source: Path | bytes, sidecar: bytes | None = None, whom: Trusted | None = None) -> Provenance:
    """What a file, or its content, says about where it comes from. Of a path the sidecar beside it is read too, if none
    is given; the path of a sidecar is that of its file. To read many files, ask once whom the user trusts
    (`trusted.trusted()`) and give it.

    A file of any size is read in pieces. Raises UserError if it cannot be read, or if what is needed is not installed.
    """
    from afresh.services.provenance.sidecar import MOST_BYTES
    from afresh.services.provenance.trusted import trusted

    whom = whom or trusted()
    if isinstance(source, bytes):
        return _finding(io.BytesIO(source), None, sidecar, whom)
    path = source.with_name(source.name.removesuffix(SIDECAR))
    beside = path.with_name(path.name + SIDECAR)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for, a device has no end
        raise UserError(f"{path} is a device, pipe or socket. Give a file, or a folder of files.", "unreadable")
    with readable(path):
        if sidecar is None and beside.is_file():
            sidecar = start_of(beside, MOST_BYTES + 1)
        if sidecar is not None and not path.is_file():
            layer = Layer("sidecar", Status.DAMAGED, f"the file that it is about, {path.name}, is not beside it")
            return Provenance(str(path), (layer,))
        with path.open("rb") as stream:
            return _finding(stream, path, sidecar, whom)


def _finding(stream: BinaryIO, path: Path | None, sidecar: bytes | None, whom: Trusted) -> Provenance:
    from afresh.services.provenance.containers import ContainerError, manifest_in
    from afresh.services.provenance.sidecar import sidecar_layer

    layers: list[Layer] = []
    if can_embed():
        from afresh.services.provenance.manifest import manifest_layer

        found = manifest_layer(stream, whom)
        layers += [] if found is None else [found]
    else:
        try:
            present = manifest_in(stream) is not None
        except ContainerError:
            present = True
        if present:
            require_c2pa("Reading the manifest of a file")
    if sidecar is not None:
        layers.append(sidecar_layer(stream, None if path is None else path.name, sidecar, whom))
    return Provenance("" if path is None else str(path), tuple(layers))


def works_in(path: Path) -> Iterator[Path]:
    """The files that a path names: itself, or the files of a folder and of those within it, in the order of their
    names. Of a file and its sidecar only the file is one; hidden files and symbolic links are left out. A folder that
    may not be read is given itself, as what cannot be."""
    try:
        entries = sorted(os.scandir(path), key=lambda e: e.name) if path.is_dir() else None
        inside = [(Path(e), e.is_dir()) for e in entries or () if not e.is_symlink() and (e.is_dir() or e.is_file())]
        shown = [(e, folder) for e, folder in inside if not e.name.startswith(".") and (folder or not _has_file(e))]
    except OSError:
        entries, shown = None, []
    if entries is None:
        yield path
    for entry, folder in shown:
        if folder:
            yield from works_in(entry)
        else:
            yield entry


def _has_file(sidecar: Path) -> bool:
    """Whether this is the sidecar of a file that is there."""
    return sidecar.name.endswith(SIDECAR) and sidecar.with_name(sidecar.name.removesuffix(SIDECAR)).is_file()


def read_all(path: Path) -> Iterator[Provenance]:
    """The findings of the files that a path names. A file of a folder that cannot be read is one that is damaged."""
    from afresh.services.provenance.trusted import trusted

    whom = trusted()
    for file in works_in(path):
        try:
            yield read(file, whom=whom)
        except UserError as error:
            if error.code != "unreadable" or file == path:
                raise
            yield Provenance(str(file), (Layer("file", Status.DAMAGED, str(error)),))
