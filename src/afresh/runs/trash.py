"""A bin for runs: they are moved there as they are, come back, and are removed when it is emptied.

FOLDER/.bin/ID/NAME is the run that was FOLDER/NAME. The bin is beside its runs, so that nothing is copied, and hidden,
so that nothing that looks for runs finds them.
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError
from afresh.data.storage.folders import move_folder
from afresh.runs.lock import FILE as LOCK
from afresh.runs.lock import held
from afresh.runs.person_adapters import base_of
from afresh.runs.remove import check_folder, remove_folder, remove_rest

BIN = ".bin"
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")  # when a run was thrown away, and by chance


@dataclass(frozen=True)
class BinnedRun:
    """A run in a bin. `path`: where it is; `origin`: where it was; `thrown`: when, in seconds since 1970."""

    id: str
    path: Path
    origin: Path
    thrown: float


def throw(path: Path) -> BinnedRun:
    """Move the run in a folder to the bin beside it, whether or not it can be read.

    Raises UserError if the folder is a link, if it is the adapter of a person or has some, if another process holds the
    run, or if it cannot be moved.
    """
    check_folder(path)
    if base_of(path.resolve()) is not None:
        raise UserError(
            f"{path} is the adapter of a person, which is not kept in a bin. Delete it with a proof: afresh rm {path}.",
            "is_adapter",
        )
    id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    place = path.parent / BIN / id
    try:
        with held(path, "moved to the bin"):
            place.mkdir(parents=True)
            move_folder(path, place / path.name)
            (place / path.name / LOCK).unlink(missing_ok=True)
    except OSError as error:
        raise unmovable(path, error) from None
    return BinnedRun(id, place / path.name, path, time.time())


def binned(folder: Path) -> list[BinnedRun]:
    """The runs that were thrown away from a folder, the newest first."""
    root = folder / BIN
    found = []
    for path in sorted(root.glob("*/*/run.json"), reverse=True):
        run, id = path.parent, path.parent.parent.name
        if ID.fullmatch(id) and not run.is_symlink():
            found.append(BinnedRun(id, run, folder / run.name, run.parent.stat().st_mtime))
    return found


def restore(thrown: BinnedRun) -> Path:
    """Move a run back to where it was, or beside it if its name is taken; returns where it is now. Raises UserError."""
    place, number = thrown.origin, 2
    while place.exists() or place.is_symlink():
        place, number = thrown.origin.with_name(f"{thrown.origin.name}-{number}"), number + 1
    try:
        move_folder(thrown.path, place)
        thrown.path.parent.rmdir()
    except OSError as error:
        raise unmovable(thrown.path, error) from None
    return place


def delete(thrown: BinnedRun) -> list[str]:
    """Remove a run in a bin for good. What is not of the run stays in its folder; the names are returned. Raises
    UserError as `remove_run` does."""
    left = remove_folder(thrown.path)
    # Remove the folders of a bin in which nothing is left, also those of removals that were interrupted.
    for place in thrown.path.parent.parent.iterdir():
        if ID.fullmatch(place.name) and not place.is_symlink():
            for folder in place.iterdir():
                remove_rest(folder)
            with suppress(OSError):  # what is in it stays
                place.rmdir()
    return left


def unmovable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be moved: {error.strerror or error}. Change the permissions of its folder, then try again.",
        "cannot_move",
        path=str(path),
    )
