"""Folders that are there as a whole or not at all, and the places that a user names as output. What is there is lost
only if it is to be replaced, and then only once what takes its place is complete."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from afresh.core.errors import UserError
from afresh.data.storage.files import path_aside, sync_folder, sync_tree, write_file


@contextmanager
def new_folder(place: Path, replace: bool = False) -> Iterator[Path]:
    """The path of a folder to make and fill, which becomes `place` when the block has ended, and is removed if it
    fails. Raises OSError as `put_in_place` does."""
    with folder_aside(place) as aside:
        yield aside
        put_in_place(aside, place, replace)


@contextmanager
def folder_aside(place: Path) -> Iterator[Path]:
    """The path beside `place` of a folder to make and fill. What is there at the end of the block, because it was not
    put in place, is removed, and so is at its beginning what a killed process left."""
    for rest in place.parent.glob(f".{glob.escape(place.name)}.*.tmp"):
        if not _is_alive(rest.name.split(".")[-2]):
            shutil.rmtree(rest, ignore_errors=True)
    aside = path_aside(place)
    try:
        yield aside
    finally:
        if aside.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _is_alive(process: str) -> bool:
    """Whether there is a process of this number; also for what is not a number."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


def write_folder(place: Path, files: Iterable[tuple[str, bytes]], replace: bool = False) -> None:
    """A folder of these files: names and contents. Raises OSError, with nothing of it left, if it cannot be written."""
    with new_folder(place, replace) as aside:
        aside.mkdir(parents=True)
        for name, data in files:
            write_file(aside / name, data)


def put_in_place(new: Path, place: Path, replace: bool = False) -> None:
    """Sync a complete folder and rename it to `place`. A folder of that name is put aside with `replace`, and removed
    once the new one is there.

    Raises OSError, with the old folder in its place, if that is not possible.
    """
    sync_tree(new)
    if not place.exists():
        os.replace(new, place)
        sync_folder(place.parent)
    elif replace:
        with set_aside(place, place.with_name(f".{place.name}.{os.getpid()}.old")):
            os.replace(new, place)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))


def move_folder(folder: Path, to: Path) -> None:
    """Rename a folder of the same disk, also into another folder. Raises OSError if that is not possible."""
    folder.rename(to)
    sync_folder(folder.parent)
    sync_folder(to.parent)


@contextmanager
def set_aside(place: Path, aside: Path) -> Iterator[None]:
    """Rename what is at `place` to `aside` for as long as the block needs to put a folder there, which it has synced.
    Then the old one is removed; if the block fails, it is back. Raises OSError if it cannot be renamed."""
    os.replace(place, aside)
    try:
        yield
    except BaseException:
        os.replace(aside, place)
        raise
    sync_folder(place.parent)
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()


# --------------------------------------------------------------------------- output


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
def output_folder(out: Path, marks: Collection[str]) -> Iterator[Path]:
    """The path of a folder to make and fill, which becomes `out` when the block has ended, and is removed if it fails.

    An earlier result, a folder that holds a file of the names `marks`, is replaced as a whole. Other folders with
    something in them are filled themselves: what else is in them stays.
    """
    if out.is_symlink() or (out.is_dir() and any(out.iterdir()) and not is_result(out, marks)):
        yield out
        return
    with folder_aside(out) as unfinished:
        yield unfinished
        if unfinished.exists():
            put_in_place(unfinished, out, replace=True)


def is_result(folder: Path, marks: Collection[str]) -> bool:
    return any((folder / mark).is_file() for mark in marks)
