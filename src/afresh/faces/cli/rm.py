"""`afresh rm`: remove runs, and data that was kept as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.plural import size
from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.paths import places, run_paths
from afresh.faces.cli.show import answer, emit, note

if TYPE_CHECKING:
    from afresh.data.imported import WrittenData


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
        o.option("Data that was kept as files, by its name as afresh doctor lists it.", metavar="NAME"),
    ] = None,
    with_data: Annotated[
        bool,
        typer.Option("--with-data", help="Of adapters of persons: also delete the data that they learnt from."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Annotated[bool, o.json_of("{removed, data}")] = False,
) -> None:
    """Remove runs from the disk, after asking, or data that was kept as files. Other files in their folders stay.

    Runs that were tuned, aligned or distilled from them keep working: each holds all that it needs. A run whose data
    was removed can still be sampled, but not be resumed or measured. Of the adapter of a person, RUN:NAME, a proof is
    written to RUN/deletions: what was deleted, and that nothing of it is left in RUN.
    """
    from afresh.core import UserError
    from afresh.core.plural import counted
    from afresh.data.imported import named_data, remove_data
    from afresh.data.storage.files import bytes_on_disk
    from afresh.runs.about import AboutRun
    from afresh.runs.deletion import deletable_data, delete_adapter, end_interrupted
    from afresh.runs.person_adapters import base_of
    from afresh.runs.remove import check_removable, remove_run
    from afresh.runs.run import Run

    if not runs and not data:
        raise UserError("Say what to remove: afresh rm RUN, or afresh rm --data NAME.")
    named = list(dict.fromkeys(runs or []))
    ended = [path for path in named if any(end_interrupted(place) for place in places(path))]
    found = [Run.open(path, any_links=True) for path in named if path not in ended]
    for run in found:
        check_removable(run)
        if with_data and not run.record.personal:
            raise UserError(f"{run.path} is not the adapter of a person: leave --with-data out.")
        if with_data:
            deletable_data(run)
    kept = named_data(data or [])
    if not yes and (found or kept):
        if as_json or not sys.stdin.isatty():
            names = ", ".join([*(str(run.path) for run in found), *(d.name for d in kept)])
            raise UserError(f"Removing {names} cannot be undone. Say that it is meant: --yes.")
        for d in kept:
            answer(f"{d.path}: {size(d.bytes)}{in_use(d)}")
        for run in found:
            about, taken = AboutRun(run), size(bytes_on_disk(run.path))
            answer(f"{run.path}: {about.model}, step {about.steps:,}, {taken}")
            if with_data:
                answer(f"{run.record.data.path}: what it learnt from")
        count = len(found) + len(kept)
        if not typer.confirm("Remove it for good?" if count == 1 else f"Remove these {count} for good?"):
            raise typer.Exit
    removed: list[dict[str, Any]] = [{"run": str(path), "left": []} for path in ended]
    for path in ended:
        note(f"what an interrupted command had left of {path} is removed")
    for run in found:
        personal = run.record.personal and base_of(run.path.resolve()) is not None
        deleted = delete_adapter(run, with_data) if personal else None
        left = remove_run(run) if deleted is None else deleted.left
        removed.append({"run": str(run.path), "left": list(left)})
        if left:
            note(f"{run.path} stays, because it holds what is not of the run: {', '.join(left)}")
        if not as_json:
            answer(f"removed {run.path}")
        if deleted is not None:
            removed[-1]["proof"] = str(deleted.proof)
            note(f"what was deleted, and that {run.base.path} is as it was: {deleted.proof}")
            if deleted.data is None:
                note(f"{run.record.data.path}, which it learnt from, stays")
            if deleted.seen:
                items = counted(deleted.seen, "item")
                note(f"{run.base.path} has learnt {items} of its data itself, which is not undone: see the proof")
    for d in kept:
        remove_data(d)
        if not as_json:
            answer(f"removed {d.path}")
    if as_json:
        emit({"removed": removed, "data": [d.name for d in kept]})


def in_use(data: WrittenData) -> str:
    """Which runs in the folder of runs learnt from the data, for a line about it."""
    from afresh.core import UserError
    from afresh.data.preferences import preferences
    from afresh.runs.person_adapters import runs_in
    from afresh.runs.run import Run

    users = []
    for folder in runs_in(preferences().runs):
        try:
            path = Path(Run.open(folder, any_links=True).record.data.path)
        except UserError:
            continue
        if path.resolve().is_relative_to(data.path.resolve()):
            users.append(str(folder))
    return f", the data of {', '.join(users)}" if users else ""
