"""Make a folder of a bundle that was checked."""

from __future__ import annotations

import os
from pathlib import Path

from afresh.bundles.names import SIGNATURE
from afresh.bundles.open import Bundle, damaged, digest_of
from afresh.core import UserError
from afresh.storage.files import CANNOT_WRITE, free_bytes


def unpack(bundle: Bundle, folder: Path) -> None:
    """Write the files of a bundle into a new folder, with its signature, by which `model-signing` checks it again. They
    are compared with what was signed once more, since the bundle may have changed after it was checked.

    Raises UserError, with what was written left to the caller, if it has, or if the disk is full.
    """
    try:
        folder.mkdir(parents=True)
        with bundle.path.open("rb") as stream:
            for entry in bundle.entries:
                path = folder / entry.name
                path.parent.mkdir(parents=True, exist_ok=True)
                stream.seek(entry.place)

                def read(count: int, name: str = entry.name) -> bytes:
                    data = stream.read(count)
                    if not data:
                        raise damaged(bundle.called, f"the file {name} is cut off")
                    return data

                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as out:
                    digest = digest_of(read, entry.size, out.write)
                if digest != entry.sha256:
                    raise damaged(bundle.called, f"the file {entry.name} in it is not the one that was signed")
        if bundle.signature:
            (folder / SIGNATURE).write_bytes(bundle.signature)
    except OSError as error:
        raise UserError(
            f"{bundle.called} cannot be unpacked into {folder.parent}: {error.strerror or error}. It needs "
            f"{bundle.bytes:,} bytes; {free_bytes(folder.parent):,} are free. Nothing of it is left there: make "
            "room or choose another place.",
            CANNOT_WRITE,
        ) from error
