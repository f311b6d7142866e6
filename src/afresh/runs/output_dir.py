"""Which folder may become a run, and what becomes of the run that it replaces: it stays until the new one can begin."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afresh.core import UserError

ASIDE = ".replaced"  # behind the name of a run that waits for the one that takes its place


def is_run(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "checkpoints").exists()


def check_claim(out: Path, force: bool, needed: Sequence[Path] = ()) -> None:
    """Before minutes are spent: raises UserError where `out` is occupied and `force` is not given, and where replacing
    it would take away what the new run is made of (`needed`: a base, data, votes)."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file. Choose a folder for --out.")
    if is_run(out):
        here = out.resolve()
        for path in needed:
            there = path.expanduser().resolve()
            if there.exists() and (there == here or here in there.parents):
                which = "is what" if there == here else f"holds {path}, which"
                raise UserError(f"{out} {which} the new run is made of, and would be replaced. Choose another --out.")
        if not force:
            raise UserError(
                f"{out} already holds a run. Go on with it: afresh train --resume {out}; "
                "replace it: --force; or choose another --out."
            )
        if out.is_symlink():
            raise UserError(f"{out} is a link to a run. Give the folder itself as --out, or another.")
        if (aside := put_aside(out)).exists():
            raise UserError(
                f"{aside} was put aside by a command that was killed before its new run could begin. Move it back, or "
                "remove it."
            )
    elif out.is_dir() and any(out.iterdir()) and not force:
        raise UserError(f"{out} is a folder with other things in it. Choose another --out, or give --force.")


def put_aside(out: Path) -> Path:
    return out.with_name(out.name + ASIDE)


@contextmanager
def claimed(out: Path, force: bool, needed: Sequence[Path] = ()) -> Iterator[None]:
    """`out` is free to become a run. Should making it fail, nothing of it is left, and a run that it was to replace is
    back; only when it is made is that one removed. Raises UserError as `check_claim`."""
    check_claim(out, force, needed)
    aside = put_aside(out) if is_run(out) else None
    try:
        if aside is not None:
            os.replace(out, aside)
    except OSError as e:
        raise UserError(f"{out} cannot be replaced: {e.strerror or e}. Choose another --out.") from e
    before = set(out.iterdir()) if out.is_dir() else None
    try:
        with ended_as_interrupted():
            yield
    except BaseException:
        clear(out, before)
        if aside is not None:
            os.replace(aside, out)
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """A SIGTERM raises KeyboardInterrupt, so that what is half made is cleared away."""

    def handler(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def clear(out: Path, before: set[Path] | None) -> None:
    """Remove the folder, or of one that was there all but what was in it."""
    if before is None:
        shutil.rmtree(out, ignore_errors=True)
        return
    for path in set(out.iterdir()) - before:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
