"""Remove runs from the disk, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from afresh.core import UserError
from afresh.runs.lock import FILE, held
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.manifest import STORED
from afresh.runs.personal import check_without_adapters
from afresh.runs.run import Run
from afresh.training.weights import BASE

WEIGHTS = (BASE, *STORED)
# What training, measuring and aligning write into the folder of a run. run.json is the last but the lock, so that a
# removal which was interrupted can be repeated.
OWN = (
    "checkpoints",
    "encoder",
    "codec",
    "adapter",
    "judges",
    "reward-model",
    "samples",
    "tensorboard",
    "wandb-id",
    "conditions.safetensors",
    *(f"{name}.{suffix}" for name in WEIGHTS for suffix in ("safetensors", "sha256", "json")),
    "signature",
    MANIFEST,
    "aligned.json",
    "practise",
    "recommend",
    "latest",
    "metrics.jsonl",
    "report.html",
    "report.json",
    "card.md",
    ".*.tmp",  # files that were being written when a command was killed
    "run.json",
    FILE,
)


def own_files(folder: Path) -> Iterator[Path]:
    """The files and folders of the run, directly in its folder, in the order in which they are removed."""
    for pattern in OWN:
        yield from sorted(folder.glob(pattern))


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
    try:
        with held(folder, "removed"):
            for path in own_files(folder):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            left = sorted(p.name for p in folder.iterdir())
            if not left:
                folder.rmdir()
    except OSError as e:
        raise UserError(
            f"{e.filename or folder} cannot be removed: {e.strerror or e}. Change its permissions, then repeat the "
            "command.",
            "cannot_remove",
            path=str(folder),
        ) from e
    return left
