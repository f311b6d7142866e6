"""`afresh rm`: remove runs, and data that was kept as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import completion
from afresh.cli import options as o
from afresh.cli.paths import run_paths
from afresh.cli.show import answer, emit, note, size

if TYPE_CHECKING:
    from afresh.data.written_aside import WrittenData


def rm(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Runs: their folders, or their names in runs/.",
            metavar="RUN",
            callback=run_paths,
            autocompletion=completion.runs,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Data that was kept as files, by its name as afresh doctor lists it.", metavar="NAME"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Annotated[bool, o.json_of("{removed, data}")] = False,
) -> None:
    """Remove runs from the disk, after asking, or data that was kept as files. Other files in their folders stay.

    Runs that were tuned, aligned or distilled from them keep working: each holds all that it needs. A run whose data
    was removed can still be sampled, but not be resumed or measured.
    """
    from afresh.core import UserError
    from afresh.core.files import bytes_on_disk
    from afresh.data.written_aside import named_data, remove_data
    from afresh.runs.remove import check_removable, remove_run
    from afresh.runs.run import Run
    from afresh.training.checkpoint import steps_in

    if not runs and not data:
        raise UserError("Say what to remove: afresh rm RUN, or afresh rm --data NAME.")
    found = [Run.open(path, any_links=True) for path in dict.fromkeys(runs or [])]
    for run in found:
        check_removable(run)
    kept = named_data(data or [])
    if not yes:
        if as_json or not sys.stdin.isatty():
            names = ", ".join([*(str(run.path) for run in found), *(d.name for d in kept)])
            raise UserError(f"Removing {names} cannot be undone. Say that it is meant: --yes.")
        for d in kept:
            answer(f"{d.path}: {size(d.bytes)}{in_use(d)}")
        for run in found:
            made, step = run.record, int((steps_in(run.path / "checkpoints") or ["0"])[-1])
            taken = size(bytes_on_disk(run.path))
            answer(f"{run.path}: {made.family} on {made.modality}, step {step:,}, {taken}")
        count = len(found) + len(kept)
        if not typer.confirm("Remove it for good?" if count == 1 else f"Remove these {count} for good?"):
            raise typer.Exit
    removed = []
    for run in found:
        left = remove_run(run)
        removed.append({"run": str(run.path), "left": left})
        if left:
            note(f"{run.path} stays, because it holds what is not of the run: {', '.join(left)}")
        if not as_json:
            answer(f"removed {run.path}")
    for d in kept:
        remove_data(d)
        if not as_json:
            answer(f"removed {d.path}")
    if as_json:
        emit({"removed": removed, "data": [d.name for d in kept]})


def in_use(data: WrittenData) -> str:
    """Which runs in the folder of runs learnt from the data, for a line about it."""
    from afresh.core import UserError
    from afresh.preferences import preferences
    from afresh.runs.run import Run

    users = []
    for file in sorted(preferences().runs.glob("*/run.json")):
        try:
            path = Path(Run.open(file.parent, any_links=True).record.data.path)
        except UserError:
            continue
        if path.resolve().is_relative_to(data.path.resolve()):
            users.append(str(file.parent))
    return f", the data of {', '.join(users)}" if users else ""
