"""Remove runs from the disk, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from afresh.core import UserError
from afresh.runs.lock import FILE, held
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.manifest import STORED
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
    "latest",
    "metrics.jsonl",
    "report.html",
    "report.json",
    "card.md",
    ".*.tmp",  # files that were being written when a command was killed
    "run.json",
    FILE,
)


def own_files(run: Run) -> Iterator[Path]:
    """The files and folders of the run, directly in its folder, in the order in which they are removed."""
    for pattern in OWN:
        yield from sorted(run.path.glob(pattern))


def check_removable(run: Run) -> None:
    """Raises UserError if the folder is a link to a run, because what the link names may be shared."""
    if run.path.is_symlink():
        raise UserError(
            f"{run.path} is a link to {run.path.resolve()}. Give the folder itself, or remove the link by hand.",
            "run_is_link",
            path=str(run.path),
        )


def remove_run(run: Run) -> list[str]:
    """Remove the run. Its folder goes too, unless it holds other things; their names are returned.

    Raises UserError if the folder is a link, if another process holds the run, or if something cannot be removed.
    """
    check_removable(run)
    try:
        with held(run.path, "removed"):
            for path in own_files(run):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            left = sorted(p.name for p in run.path.iterdir())
            if not left:
                run.path.rmdir()
    except OSError as e:
        raise UserError(
            f"{e.filename or run.path} cannot be removed: {e.strerror or e}. Change its permissions, then repeat the "
            "command.",
            "cannot_remove",
            path=str(run.path),
        ) from e
    return left
