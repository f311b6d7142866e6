"""`afresh distill`: a flow becomes a student that draws in one to four steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.train import HAND, finish

BUDGET = "Budget (one of them; 5 minutes if none is given)"


def distill(
    run: Annotated[Path, typer.Argument(help="A run of the family flow, the teacher.", metavar="RUN")],
    guidance: Annotated[
        float | None, typer.Option(help="The teacher's guidance, which the student learns for good; 1 if not given.")
    ] = None,
    finest: Annotated[int, typer.Option(help="Most steps that the student will draw in: 1, 2, 4, 8, ...")] = 4,
    minutes: Annotated[float | None, typer.Option(help="Time to train.", rich_help_panel=BUDGET)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train.", rich_help_panel=BUDGET)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; RUN-student if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that is in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=HAND)] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="train.lr=0.001, family.solves=4.", metavar="KEY=VALUE", rich_help_panel=HAND),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure at the end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Distill a flow into a student that draws in one to four steps what its teacher draws in twenty.

    The student begins with the teacher's weights and learns, on the teacher's data, where whole stretches of its
    solution lead. The result is a run like any other, to sample, measure and distill no further. Ctrl-C saves; afresh
    train --resume RUN goes on.
    """
    from afresh.core.options import pairs
    from afresh.tasks.distill import DistillSpec, start
    from afresh.training.options import by_part

    set_family, set_train = by_part(pairs(setting or [], "--set"))
    spec = DistillSpec(
        run=run,
        guidance=guidance,
        finest=finest,
        minutes=minutes,
        steps=steps,
        seed=seed,
        out=out,
        force=force,
        device=device,
        set_family=set_family,
        set_train=set_train,
    )
    finish(start(spec), measure, as_json)
