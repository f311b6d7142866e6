"""`afresh label`: what a model, data or a work is made of, and what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.commands import show_result
from afresh.faces.cli.paths import existing_run, run_path
from afresh.faces.cli.show import emit, note, say


def run_or_file(path: Path) -> Path | None:
    """The folder that RUN names, or the file or folder. Raises a usage error if nothing has that name."""
    found = run_path(path) or path
    return found if found.exists() and not (found / "checkpoints").exists() else existing_run(path)


def label(
    path: Annotated[
        Path,
        typer.Argument(
            help="A run: its folder, or its name in runs/. Or data: a file or a folder. Or a work: its file.",
            metavar="RUN|DATA|WORK",
            callback=run_or_file,
            autocompletion=completion.runs,
        ),
    ],
    format: Annotated[
        Literal["label", "card", "cyclonedx", "croissant"],
        o.option(
            "label: all that is known, as JSON. card: a card of the Hugging Face hub. cyclonedx: an ML-BOM of "
            "CycloneDX 1.6. croissant: the data, in the words of ML Croissant."
        ),
    ] = "label",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write it to.", metavar="FILE")] = None,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{format, document}")] = False,
) -> None:
    """Write down what a model is made of, under which licences, and what it cost.

    It names a model, its base, its data and its votes by the digests of their contents, the licences that follow and
    what they ask for, and the seconds, the energy and the money that training and works took. Energy is measured where
    the machine tells, else estimated. Money rests on the preferences price_kwh and price_hour. Data and works have
    labels too: a work is joined with the run that made it, where that is in runs/.
    """
    from afresh.verbs.labelling import labelled

    made = labelled(path, format)
    note(*made.notes)
    if out is not None:
        made.save(out, force)
        say(f"{made.format} in {out}")
    if as_json:
        emit({"run": str(path), **made.json()})
    elif out is None:
        show_result(made)
