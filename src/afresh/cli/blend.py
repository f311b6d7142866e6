"""`afresh blend`: from one picture to another, or along an attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.sample import deliver, labels


def blend(
    run: Annotated[Path, typer.Argument(help="Folder of a run that makes pictures.", metavar="RUN")],
    first: Annotated[Path, typer.Argument(help="A picture.", metavar="PICTURE")],
    second: Annotated[Path | None, typer.Argument(help="Another one, to go to.", metavar="[OTHER]")] = None,
    n: Annotated[int, typer.Option("-n", help="Pictures on the way, both ends among them.")] = 9,
    label: Annotated[list[str] | None, typer.Option(help="What the first picture shows.", metavar="CLASS")] = None,
    to_label: Annotated[
        list[str] | None, typer.Option(help="What the other one shows; else the same.", metavar="CLASS")
    ] = None,
    toward: Annotated[
        str | None, typer.Option(help="Instead of another picture: more of this label, by n amounts.", metavar="CLASS")
    ] = None,
    away: Annotated[str | None, typer.Option(help="... and less of this one.", metavar="CLASS")] = None,
    most: Annotated[float, typer.Option(help="The largest amount; 1 = as far as the labels' means are apart.")] = 1.5,
    out: Annotated[Path | None, typer.Option(help="Folder to write to, or a .png for one picture of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The records as a JSON list on standard output.")] = False,
) -> None:
    """Go from one picture to another, or towards an attribute, through what the model draws from.

    The ends are what the model makes of the pictures: a flow gives them back nearly as they are, a VAE smoother.
    """
    import torch

    from afresh.blend import Blender
    from afresh.core import UserError
    from afresh.judge import prepared_again
    from afresh.request import Request
    from afresh.run import Run

    if as_json and out is None:
        raise UserError("A picture cannot be printed as JSON. Say where to write it: --out DIR.")
    if (second is None) == (toward is None):
        raise UserError("Give a second picture to go to, or --toward CLASS, an attribute: one of them.")
    found = Run.open(run)
    blender = Blender(found)
    if second is not None:
        start = Request(label=labels(label))
        samples = blender.between(first, second, n, start, Request(label=labels(to_label)) if to_label else start)
    else:
        assert toward is not None
        way = blender.direction(prepared_again(found).train, toward, away)
        samples = blender.along([first], way, torch.linspace(0, most, n).tolist())
    deliver(found, samples, out, as_json, "", False)
