"""What is made of a user's data once, in the folder of the user's data, for all runs that need it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from afresh.core import UserError
from afresh.data.imported import data_folder
from afresh.data.storage.files import CANNOT_WRITE, free_bytes
from afresh.data.storage.lock import open_locked


@contextmanager
def making(place: Path, what: str) -> Iterator[None]:
    """Other processes that make the same wait meanwhile. Raises UserError if `what` cannot be written."""
    try:
        with _alone(place):
            yield
    except OSError as error:
        raise UserError(
            f"The {what} cannot be written into {data_folder()}: {error.strerror or error}. Make room "
            "there, or set AFRESH_DATA_FOLDER to another folder.",
            CANNOT_WRITE,
        ) from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = place.with_name(f".{place.name}.lock")
    handle = open_locked(lock, wait=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def check_room(needed: int, what: str, advice: str) -> None:
    """Raises UserError if fewer than `needed` bytes are free. `advice`: what else helps, as a clause."""
    if needed > (free := free_bytes(data_folder())):
        raise UserError(
            f"The {what} take up to {needed:,} bytes in {data_folder()}, and {free:,} are free. Make room there, set "
            f"AFRESH_DATA_FOLDER to another folder, or {advice}.",
            CANNOT_WRITE,
        )
