"""Places that a person names as output. Nothing that is there is lost unless it was said to be replaced, and then only
once what takes its place is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from afresh.core.errors import UserError
from afresh.storage.files import sync_folder, sync_tree


def check_free(out: Path, force: bool) -> None:
    """Raises UserError if `out` is a file or a folder with something in it, unless it is to be replaced (`force`)."""
    if force or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise UserError(
        f"{out} exists. Choose another place, `out`, or replace what is there: `force=True`.",
        "output_exists",
        path=str(out),
    )


@contextmanager
def filled(out: Path, marks: Collection[str]) -> Iterator[Path]:
    """A folder to fill, which becomes `out` when the block has ended, and is removed if it fails.

    An earlier result, a folder that holds a file of the names `marks`, is replaced as a whole. Other folders with
    something in them are filled themselves: what else is in them stays.
    """
    if out.is_symlink() or (out.is_dir() and any(out.iterdir()) and not is_result(out, marks)):
        yield out
        return
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        if unfinished.exists():
            take_place(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_result(folder: Path, marks: Collection[str]) -> bool:
    return any((folder / mark).is_file() for mark in marks)


def take_place(new: Path, out: Path) -> None:
    """Rename a complete folder to `out`. A folder of that name is put aside, and removed once the new one is there.

    Raises OSError, with the old folder in its place, if that is not possible.
    """
    aside = out.with_name(f".{out.name}.{os.getpid()}.old")
    sync_tree(new)
    if out.exists():
        os.replace(out, aside)
    try:
        os.replace(new, out)
    except OSError:
        if aside.exists():
            os.replace(aside, out)
        raise
    sync_folder(out.parent)
    shutil.rmtree(aside, ignore_errors=True)
