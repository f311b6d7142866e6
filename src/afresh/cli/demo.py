"""`afresh demo`: three trainings on data made on the spot, and a page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.show import answer, emit

QUICK = 0.1  # of the usual time


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the data, the runs and the page.")] = Path("afresh-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the time: it works, it is not yet good.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Use a folder that holds other things.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="{page, image, seconds, next} on standard output.")] = False,
) -> None:
    """See it work: drawings, tales and sounds are made by a script, learnt by three models, and shown on one page.

    Takes about two minutes on two cores. No data is downloaded. An earlier demonstration in --out is replaced.
    """
    from afresh.demo.show import check_folder, run_demo

    check_folder(out, force)
    result = run_demo(out, QUICK if quick else 1.0)
    if as_json:
        emit(result)
        return
    answer(f"\n{result['seconds']:,.0f} seconds. Try next:")
    for command in result["next"]:
        answer(f"  {command}")
    answer(f"\nOpen the page: {result['page']}")
