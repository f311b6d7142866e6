"""`afresh blend`: from one image, sound or molecule to another, or along an attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.sample import deliver, labels


def blend(
    run: o.LatentRun,
    first: Annotated[Path, typer.Argument(help="An image or a sound, or a molecule or text itself.", metavar="FILE")],
    second: Annotated[Path | None, typer.Argument(help="Another one, to go to.", metavar="[OTHER]")] = None,
    n: Annotated[int, typer.Option("-n", help="How many on the way, both ends among them.")] = 9,
    label: Annotated[list[str] | None, o.class_option("What the first one is.")] = None,
    to_label: Annotated[list[str] | None, o.class_option("What the other one is; else the same.")] = None,
    caption: Annotated[str | None, o.option("What the first one shows, in words.")] = None,
    to_caption: Annotated[str | None, o.option("... and the other one; else the same.")] = None,
    toward: Annotated[str | None, o.class_option("Instead of another file: more of this label, by n amounts.")] = None,
    away: Annotated[str | None, o.class_option("... and less of this one.")] = None,
    most: Annotated[
        float | None, o.option("... the largest amount, 1.5 if not given; 1 = as far as the labels' means are apart.")
    ] = None,
    setting: o.SampleSettings = None,
    out: o.SamplesOut = None,
    force: o.Force = False,
    no_marks: o.Unmarked = False,
    label_ai: o.LabelAi = False,
    as_json: Annotated[bool, o.json_of("{verdict, samples}")] = False,
) -> None:
    """Go from one image, sound, molecule or short text to another, or towards an attribute, through the model's
    latents.

    The ends are what the model makes of the two: a flow gives them back nearly as they are, a VAE smoother.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.engine.sampling.request import Request
    from afresh.engine.sampling.samples import check_out
    from afresh.runs.run import Run
    from afresh.verbs.interpolate import blend as blended
    from afresh.verbs.interpolate import check_given

    asked = {"label": label, "to_label": to_label, "caption": caption, "to_caption": to_caption}
    check_given(second, toward, asked, {"away": away, "most": most})
    found = Run.open(run)
    found.marked = not no_marks
    if as_json and out is None and not found.encoder.kind.inline:
        raise UserError("Images and sounds cannot be printed as JSON. Say where to write them: --out DIR.")
    check_out(out, found.encoder, n, force)
    spec, settings = found.conds, pairs(setting or [], "--set")
    begin = Request(label=labels(label, spec=spec), caption=caption)
    end = Request(
        label=labels(to_label, "--to-label", spec) or begin.label,
        caption=caption if to_caption is None else to_caption,
    )
    samples = blended(found, first, second, n, begin, end, toward=toward, away=away, most=most, settings=settings)
    deliver(found, samples, out, as_json, "", False, label_ai)
