"""Remove runs from the disk, and nothing else.

A removal that was interrupted is repeated by the same command: run.json is the last file of a run that goes, as it is
the last that comes, and what is left in a folder without it is removed, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afresh.core import UserError, registry
from afresh.runs.lock import FILE as LOCK
from afresh.runs.lock import half_made, held
from afresh.runs.manifest import CREATED, LEARNT, RECORD, REPORTED
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.person_adapters import check_without_adapters
from afresh.runs.run import Run

# What a run consists of, in the order in which it is removed, after what verbs of domains and of other packages wrote.
OWN = (
    "checkpoints",
    *(part for part in CREATED if part != RECORD),
    "judges",
    "tensorboard",
    "wandb-id",
    "signature",
    "model.sig",  # of the bundle that it came in
    MANIFEST,
    *LEARNT,
    "latest",
    *REPORTED,
    ".*.tmp",  # files that were being written when a command was killed
    RECORD,
    LOCK,
)
MADE = (*(part for part in CREATED if part != RECORD), "asked.jsonl", "signature", MANIFEST, ".*.tmp", LOCK)


def own_files(folder: Path) -> Iterator[Path]:
    """The files and folders of the run, directly in its folder, in the order in which they are removed."""
    return matching(folder, (*registry.run_files(), *OWN))


def matching(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def is_rest(folder: Path) -> bool:
    """Whether a folder is what is left where making a run, or the very end of a removal, was interrupted."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    names = {p.name for p in folder.iterdir()}
    return names <= {LOCK} or (half_made(folder) and names <= {p.name for p in matching(folder, MADE)})


def remove_rest(folder: Path) -> bool:
    """Remove what is left of a run where making or removing it was interrupted, and its folder, unless that holds other
    things; returns whether there was something. Raises UserError if it cannot be removed, or is being made now."""
    if not is_rest(folder) and not half_made(folder):
        return False
    with removing(folder), held(folder, "removed"):
        remove_paths(matching(folder, MADE))
        if not any(folder.iterdir()):
            folder.rmdir()
    return True


def remove_paths(paths: Iterator[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def removing(folder: Path) -> Iterator[None]:
    """Raises UserError for an OSError in the block."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"{e.filename or folder} cannot be removed: {e.strerror or e}. Change its permissions, then repeat the "
            "command.",
            "cannot_remove",
            path=str(folder),
        ) from e


def check_removable(run: Run) -> None:
    """Raises UserError if the folder is a link to a run, because what the link names may be shared, and if adapters of
    persons depend on the run."""
    check_folder(run.path)


def check_folder(folder: Path) -> None:
    """`check_removable` of the folder of a run."""
    check_without_adapters(folder, "removed")
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link to {folder.resolve()}. Give the folder itself, or remove the link by hand.",
            "run_is_link",
            path=str(folder),
        )


def remove_run(run: Run) -> list[str]:
    """Remove the run. Its folder goes too, unless it holds other things; their names are returned.

    Raises UserError if the folder is a link, if another process holds the run, or if something cannot be removed.
    """
    return remove_folder(run.path)


def remove_folder(folder: Path) -> list[str]:
    """`remove_run` of a run that perhaps cannot be read."""
    check_folder(folder)
    with removing(folder), held(folder, "removed"):
        remove_paths(own_files(folder))
        left = sorted(p.name for p in folder.iterdir())
        if not left:
            folder.rmdir()
    return left
