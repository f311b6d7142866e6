"""`afresh demo`: all of it on data that is already there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.show import answer, emit, say

QUICK = 0.1  # of the usual time


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("afresh-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the time: it works, it is not yet good.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Use a folder that holds other things.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="{report, grids, seconds, next} on standard output.")] = False,
) -> None:
    """See it work: Python's own library learnt by a Transformer, digits by four families, all measured.

    Takes under five minutes on two cores. No data is downloaded. An earlier demonstration in --out is replaced.
    """
    from afresh.core import UserError
    from afresh.tasks.demo import run_demo

    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file. Choose a folder for --out.")
    ours = {"digits", "runs", "report.html"}
    if out.is_dir() and not force and any(out.iterdir()) and not ours & {p.name for p in out.iterdir()}:
        raise UserError(f"{out} holds other things. Choose another --out, or give --force.")
    made = run_demo(out, say, scale=QUICK if quick else 1.0)
    if as_json:
        emit(made)
        return
    answer(f"\nreport: {made['report']}")
    for grid in made["grids"]:
        answer(f"grid:   {grid}")
    answer(f"{made['seconds']:,.0f} seconds. Try next:")
    for command in made["next"]:
        answer(f"  {command}")
