"""`afresh rm`: remove runs, data that was kept as files, and what came from a source or a person from a data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.plural import size
from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.paths import places, run_paths
from afresh.faces.cli.show import answer, emit, note
from afresh.faces.cli.wording import as_typed

if TYPE_CHECKING:
    from afresh.data.imported import WrittenData
    from afresh.services.collect.forget import ForgetRequest


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
        o.option(
            "Data that was kept as files, by its name as afresh doctor lists it; with --source, --person or --item, a "
            "data set that afresh collect made.",
            metavar="NAME",
        ),
    ] = None,
    source: Annotated[str | None, o.option("Of a data set: a source, as it was given to collect.")] = None,
    person: Annotated[str | None, o.option("Of a data set: a person, by name or address of e-mail.")] = None,
    item: Annotated[
        str | None, o.option("Of a data set: items, by their ids with commas between.", metavar="ID")
    ] = None,
    with_data: Annotated[bool, typer.Option("--with-data", help="Of adapters of persons: also their data.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Annotated[
        bool, o.json_of("{removed, data}, or {dataset, items, left_out, instead, people, named, perhaps, runs}")
    ] = False,
) -> None:
    """Remove runs from the disk, after asking, or data that was kept as files. Other files in their folders stay.

    Runs that were tuned, aligned or distilled from them keep working: each holds all that it needs. A run whose data
    was removed can still be sampled, but not be resumed or measured. Of the adapter of a person, RUN:NAME, a proof is
    written to RUN/deletions: what was deleted, and that nothing of it is left in RUN.

    What came from a source or a person, or one item, leaves every file of a data set, and the copies that were kept to
    learn from it. A person or an item does not come back when its sources are read again. Models that have learnt from
    it are named, and stay as they are until they are removed. Texts of others that name the person are listed and stay;
    --item removes them.
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

    if source or person or item:
        from afresh.services.collect.forget import ForgetRequest

        if runs or with_data or len(data or []) != 1:
            raise UserError("Name one data set, and no run: afresh rm --data DATASET --person NAME.")
        forget(Path((data or [])[0]), ForgetRequest(source, person, item), yes, as_json)
        return
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
        names = ", ".join([*(str(run.path) for run in found), *(d.name for d in kept)])
        lines = [f"{d.path}: {size(d.bytes)}{in_use(d)}" for d in kept]
        for run in found:
            about, taken = AboutRun(run), size(bytes_on_disk(run.path))
            lines.append(f"{run.path}: {about.model}, step {about.steps:,}, {taken}")
            if with_data:
                lines.append(f"{run.record.data.path}: what it learnt from")
        count = len(found) + len(kept)
        confirm(f"Removing {names}", lines, "it" if count == 1 else f"these {count}", as_json)
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


def confirm(doing: str, lines: Sequence[str], what: str, as_json: bool) -> None:
    """Show the lines and ask. Raises UserError, after the lines, without a terminal."""
    from afresh.core import UserError

    asked = sys.stdin.isatty() and not as_json
    for line in () if as_json else lines:
        (answer if asked else note)(line)
    if not asked:
        raise UserError(f"{doing} cannot be undone. Say that it is meant: --yes.")
    if not typer.confirm(f"Remove {what} for good?"):
        raise typer.Exit


def forget(dataset: Path, wish: ForgetRequest, yes: bool, as_json: bool) -> None:
    from afresh.core.plural import counted
    from afresh.verbs.forget import forget as do
    from afresh.verbs.forget import would_forget

    if not yes:
        found, runs = would_forget(dataset, wish)
        what = f"{counted(found.items, 'item')} of {wish}, and {found.left_out:,} that had been left out"
        lines = [
            f"{dataset} holds {what}",
            *(as_typed(line, ("--item",)) for line in found.lines(wish)),
            *(f"seen by {r.run}" for r in runs),
        ]
        confirm(f"Removing {what},", lines, "it", as_json)
    found, runs = do(dataset, wish)
    if as_json:
        shown: dict[str, Any] = {"items": found.items, "left_out": found.left_out, "instead": list(found.instead)}
        shown |= {"people": dict(found.people), "named": [vars(n) for n in found.named], "perhaps": found.perhaps}
        emit({"dataset": str(dataset), **shown, "runs": [{"run": str(r.run), "certain": r.certain} for r in runs]})
        return
    answer(f"forgotten: {counted(found.items, 'item')}, and {found.left_out:,} that had been left out")
    for other in found.instead:
        answer(f"was left out as a duplicate of it and is an item now: {other}")
    for run in runs:
        answer(f"{'has seen it' if run.certain else 'may have seen it'}: {run.run}")
    if runs:
        note("What these models have learnt of it is not undone. Train them again, and remove them with afresh rm.")


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
