"""`afresh edit`: pictures and sounds that exist, changed by a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.sample import deliver, guidances, labels, numbers, with_set

WHAT, WISHES, ASKED, HOW = "What may change", "What is wished for", "What is asked for", "How"


def edit(
    run: Annotated[Path, typer.Argument(help="Folder of a run that makes pictures or sounds.", metavar="RUN")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures or sounds to change.", metavar="FILE ...")],
    n: Annotated[int, typer.Option("-n", help="Variations of each.")] = 4,
    strength: Annotated[
        float | None,
        typer.Option(help="How much may change, 0 to 1; 1 inside a mask, else 0.6 if not given.", rich_help_panel=WHAT),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A picture, white where it may change: the rest stays.", metavar="FILE", rich_help_panel=WHAT
        ),
    ] = None,
    hole: Annotated[
        str | None,
        typer.Option(help="Seconds of a sound that may change: 0.2:0.5.", metavar="START:END", rich_help_panel=WHAT),
    ] = None,
    extend: Annotated[
        float | None, typer.Option(help="Go on for so many seconds after a sound.", rich_help_panel=WHAT)
    ] = None,
    loop: Annotated[
        float | None,
        typer.Option(help="So many new seconds lead from a sound's end to its beginning.", rich_help_panel=WHAT),
    ] = None,
    outpaint: Annotated[
        str | None,
        typer.Option(help="Go on beyond the edges: right=16,top=8 (pixels).", metavar="SIDES", rich_help_panel=WHAT),
    ] = None,
    upscale: Annotated[
        int, typer.Option(help="The pictures are so many times smaller (2): draw them large.", rich_help_panel=WHAT)
    ] = 1,
    palette: Annotated[
        str | None, typer.Option(help="These colours alone: '#102030,#ffeedd'.", rich_help_panel=WISHES)
    ] = None,
    edges: Annotated[
        Path | None, typer.Option(help="The edges of this picture.", metavar="FILE", rich_help_panel=WISHES)
    ] = None,
    style: Annotated[
        Path | None, typer.Option(help="Texture and colours of this one.", metavar="FILE", rich_help_panel=WISHES)
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            help="Your own: x (B, C, H, W) in [-1, 1] to (B,), to be small.",
            metavar="FILE.py:FUNCTION",
            rich_help_panel=WISHES,
        ),
    ] = None,
    weight: Annotated[float, typer.Option(help="Of the wishes; more = closer.", rich_help_panel=WISHES)] = 1.0,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A class; NAME=CLASS where there are several.", metavar="CLASS", rich_help_panel=ASKED),
    ] = None,
    number: Annotated[
        list[str] | None, typer.Option(help="A number by name.", metavar="NAME=X", rich_help_panel=ASKED)
    ] = None,
    caption: Annotated[
        str | None, typer.Option(help="What the picture shows, or what is to be heard.", rich_help_panel=ASKED)
    ] = None,
    guidance: Annotated[
        list[str] | None,
        typer.Option(
            help="How hard to steer to what is asked for; 1 = as learnt. PART=X for one part.",
            metavar="X",
            rich_help_panel=ASKED,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of sampling: steps=50.", metavar="KEY=VALUE", rich_help_panel=HOW),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same changes.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to, a .png for one picture of all, a .wav or .flac for one sound."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The records as a JSON list on standard output.")] = False,
) -> None:
    """Change pictures and sounds that exist: fill a hole, vary them, go on beyond their edges or their end, make them
    loop; enlarge pictures, give them a palette.

    Several wishes go together. What is not asked for (a label, a caption) is left open.
    """
    from afresh.core import UserError
    from afresh.runs.run import Run
    from afresh.sampling.request import Request
    from afresh.sampling.samples import check_out
    from afresh.tasks.edit import Change, Editor, changed
    from afresh.tasks.outpaint import sides

    if as_json and out is None:
        raise UserError("Pictures and sounds cannot be printed as JSON. Say where to write it: --out DIR.")
    if n < 1:
        raise UserError(f"-n is the number of variations, from 1. Given: {n}.")
    found = Run.open(run)
    settings = with_set({"guidance": guidances(guidance)}, setting)
    check_out(out, found.encoder.space, n * len(pictures))
    request = Request(label=labels(label, spec=found.conds), number=numbers(number) or {}, caption=caption)
    editor = Editor(found, request, settings, seed)
    change = Change(
        strength=strength,
        mask=mask,
        upscale=upscale,
        palette=() if palette is None else tuple(c.strip() for c in palette.split(",")),
        edges=edges,
        style=style,
        function=function,
        weight=weight,
        hole=hole,
    )
    around = None if outpaint is None else sides(outpaint)
    samples = changed(editor, pictures, change, n, extend, loop, around)
    deliver(found, samples, out, as_json, "", False)
