"""`afresh edit`: existing images, sounds and molecules, changed by a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.sample import deliver, guidances, labels, numbers, with_set

WHAT, WISHES = "What may change", "What is wished for"


def edit(
    run: o.LatentRun,
    pictures: Annotated[
        list[Path],
        typer.Argument(help="Images or sounds to change, or molecules or texts themselves.", metavar="FILE ..."),
    ],
    n: Annotated[int, typer.Option("-n", help="Variations of each input.")] = 1,
    strength: Annotated[
        float | None, o.option("How much may change, 0 to 1; 1 inside a mask, else 0.6 if not given.", WHAT)
    ] = None,
    mask: Annotated[
        Path | None, o.option("An image, white where it may change; the rest stays.", WHAT, metavar="FILE")
    ] = None,
    hole: Annotated[
        str | None, o.option("Seconds of a sound that may change: 0.2:0.5.", WHAT, metavar="START:END")
    ] = None,
    extend: Annotated[float | None, o.option("Continue a sound for this many seconds.", WHAT)] = None,
    loop: Annotated[
        float | None, o.option("Make a sound loop, with this many new seconds from its end to its beginning.", WHAT)
    ] = None,
    outpaint: Annotated[
        str | None, o.option("Continue beyond the edges: right=16,top=8 (pixels).", WHAT, metavar="SIDES")
    ] = None,
    upscale: Annotated[int, o.option("The images are smaller by this factor: enlarge them.", WHAT)] = 1,
    palette: Annotated[str | None, o.option("Only these colours: '#102030,#ffeedd'.", WISHES)] = None,
    edges: Annotated[Path | None, o.option("The edges of this image.", WISHES, metavar="FILE")] = None,
    style: Annotated[Path | None, o.option("The texture and colours of this image.", WISHES, metavar="FILE")] = None,
    function: Annotated[
        str | None,
        o.option(
            "Your own function: x (B, C, H, W) in [-1, 1] to (B,), to become small.", WISHES, metavar="FILE.py:FUNCTION"
        ),
    ] = None,
    weight: Annotated[float, o.option("Weight of the wishes; more = closer.", WISHES)] = 1.0,
    label: o.Label = None,
    number: o.Number = None,
    caption: o.Caption = None,
    guidance: o.Guidance = None,
    setting: o.SampleSettings = None,
    seed: o.Seed = 0,
    out: o.SamplesOut = None,
    force: o.Force = False,
    no_marks: o.Unmarked = False,
    label_ai: o.LabelAi = False,
    as_json: Annotated[bool, o.json_of("{verdict, samples}")] = False,
) -> None:
    """Change existing images and sounds: fill a hole, vary them, continue them beyond their edges or their end, make
    them loop; enlarge images, give them a palette.

    Several wishes go together. What is not asked for (a label, a caption) is left open. Molecules and short texts are
    varied by --strength, where the model has latents of them.
    """
    from afresh.core import UserError
    from afresh.engine.sampling.request import Request
    from afresh.engine.sampling.samples import check_out
    from afresh.runs.run import Run
    from afresh.verbs.edit import Change, Editor, changed
    from afresh.verbs.outpaint import sides

    if n < 1:
        raise UserError(f"-n is the number of variations, from 1. Given: {n}.")
    found = Run.open(run)
    found.marked = not no_marks
    if as_json and out is None and not found.encoder.kind.inline:
        raise UserError("Images and sounds cannot be printed as JSON. Say where to write them: --out DIR.")
    settings = with_set({"guidance": guidances(guidance)}, setting)
    check_out(out, found.encoder, n * len(pictures), force)
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
    deliver(found, samples, out, as_json, "", False, label_ai)
