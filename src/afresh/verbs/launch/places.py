"""Where a job finds what its command names: on a shared file system, in a folder that is copied, or on a mount."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from afresh.core import UserError
from afresh.verbs.launch.job import LaunchJob, TrainingCommand

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of a store, which every node asks itself; Path cuts one / off


def is_address(path: str | Path) -> bool:
    return ADDRESS.match(str(path)) is not None


def check_command(command: TrainingCommand) -> None:
    """Raises UserError if a path cannot work on any other machine."""
    if is_address(command.out):
        raise UserError(
            f"{command.out}: a job that begins again looks for its run in a folder. Give a path with `out`, on a file "
            "system that all nodes share or on a mount.",
            "output_is_address",
        )
    for path in (command.out, *command.paths):
        if not path.is_absolute() and Path(os.path.normpath(path)).parts[:1] == ("..",):
            raise UserError(
                f"{path} leaves this folder, and where it leads to depends on the machine. Give its absolute path.",
                "path_leaves_folder",
            )


def local_paths(command: TrainingCommand) -> list[Path]:
    """The paths of a command that lie on a file system, the run's folder last."""
    return [p for p in (*command.paths, command.out) if not is_address(p)]


def shared_paths(command: TrainingCommand) -> list[Path]:
    """What all nodes must see at the same absolute path."""
    return list(dict.fromkeys(Path(os.path.normpath(command.folder / p)) for p in local_paths(command)))


def mount_of(path: Path, job: LaunchJob) -> str | None:
    """The place of the mount that holds a path; None if no mount does."""
    parents = {str(p) for p in (PurePosixPath(path), *PurePosixPath(path).parents)}
    return max(parents & job.mounts.keys(), key=len, default=None)


def check_mounted(paths: Iterable[Path], job: LaunchJob) -> None:
    """Raises UserError for a path that lies on no mount of the job, and so on no node."""
    for path in paths:
        if mount_of(path, job) is None:
            places = ", ".join(job.mounts) or "none"
            raise UserError(
                f"{path} would not be where the job runs: it lies below no mount. Mounts: {places}. Give one with "
                "`mount`, as /data=SOURCE, and name what is on it by its absolute path.",
                "path_not_mounted",
            )


def key_folder(job: LaunchJob) -> str:
    """Where a job without a home of its own keeps the secret that signs its run, so that a later start may go on with
    it: beside the run."""
    return str(PurePosixPath(job.command.out).parent / ".afresh")
