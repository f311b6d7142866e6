"""`afresh forget`: remove what came from a source or a person from a data set, or one item."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, note


def forget(
    dataset: Annotated[Path, typer.Argument(help="A data set that afresh collect made.", metavar="DATASET")],
    source: Annotated[str | None, o.option("A source, as it was given to collect.")] = None,
    person: Annotated[str | None, o.option("A person, by the name that the items have.")] = None,
    item: Annotated[str | None, o.option("An item, by its id.", metavar="ID")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Forget without asking.")] = False,
    as_json: Annotated[bool, o.json_of("{dataset, items, left_out, instead, runs}")] = False,
) -> None:
    """Remove from a data set, after asking, what came from a source or a person, or one item, and say which runs have
    seen it.

    It leaves every file of the data set, and the copies that were kept to learn from it. A person or an item does not
    come back when its sources are read again. Models that have learnt from it stay as they are until they are removed.
    """
    from afresh.core import UserError
    from afresh.core.plural import counted
    from afresh.services.collect.forget import ForgetRequest
    from afresh.verbs.forget import forget as do
    from afresh.verbs.forget import would_forget

    wish = ForgetRequest(source, person, item)
    if not yes:
        found, runs = would_forget(dataset, wish)
        what = f"{counted(found.items, 'item')} of {wish}, and {found.left_out:,} that had been left out"
        if as_json or not sys.stdin.isatty():
            raise UserError(f"{dataset} holds {what}. Forgetting cannot be undone. Say that it is meant: --yes.")
        answer(f"{dataset} holds {what}")
        for run in runs:
            answer(f"seen by {run.run}")
        if not typer.confirm("Forget it for good?"):
            raise typer.Exit
    found, runs = do(dataset, wish)
    if as_json:
        emit(
            {
                "dataset": str(dataset),
                "items": found.items,
                "left_out": found.left_out,
                "instead": list(found.instead),
                "runs": [{"run": str(r.run), "certain": r.certain} for r in runs],
            }
        )
        return
    answer(f"forgotten: {counted(found.items, 'item')}, and {found.left_out:,} that had been left out")
    for other in found.instead:
        answer(f"was left out as a duplicate of it and is an item now: {other}")
    for run in runs:
        answer(f"{'has seen it' if run.certain else 'may have seen it'}: {run.run}")
    if runs:
        note("What these models have learnt of it is not undone. Train them again, and remove them with afresh rm.")
