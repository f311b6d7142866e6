"""`afresh rm`: remove runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from afresh.cli import completion
from afresh.cli import options as o
from afresh.cli.paths import run_paths
from afresh.cli.show import answer, emit, note, size


def rm(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Runs: their folders, or their names in runs/.",
            metavar="RUN",
            callback=run_paths,
            autocompletion=completion.runs,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Annotated[bool, o.json_of("{removed}")] = False,
) -> None:
    """Remove runs from the disk, after asking. Other files in their folders stay.

    Runs that were tuned, aligned or distilled from them keep working: each holds all that it needs.
    """
    from afresh.cli.runs import bytes_on_disk
    from afresh.core import UserError
    from afresh.runs.remove import check_removable, remove_run
    from afresh.runs.run import Run
    from afresh.training.checkpoint import steps_in

    found = [Run.open(path, any_links=True) for path in dict.fromkeys(runs)]
    for run in found:
        check_removable(run)
    if not yes:
        if as_json or not sys.stdin.isatty():
            names = ", ".join(str(run.path) for run in found)
            raise UserError(f"Removing {names} cannot be undone. Say that it is meant: --yes.")
        for run in found:
            made, step = run.record, int((steps_in(run.path / "checkpoints") or ["0"])[-1])
            taken = size(bytes_on_disk(run.path))
            answer(f"{run.path}: {made.family} on {made.modality}, step {step:,}, {taken}")
        if not typer.confirm("Remove it for good?" if len(found) == 1 else f"Remove these {len(found)} for good?"):
            raise typer.Exit
    removed = []
    for run in found:
        left = remove_run(run)
        removed.append({"run": str(run.path), "left": left})
        if left:
            note(f"{run.path} stays, because it holds what is not of the run: {', '.join(left)}")
        if not as_json:
            answer(f"removed {run.path}")
    if as_json:
        emit({"removed": removed})
