"""Arguments and options that several verbs share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli.paths import base_path, existing, existing_run

if TYPE_CHECKING:
    from afresh.training.deadline import Clock

STARTED = time.monotonic()  # when the command line was imported, which is soon after the command began
ASKED = "What is asked for"
BY_HAND = "Set by hand"
BUDGET = "Budget (one of them)"
ADAPTER = "Adapter"

Run = Annotated[
    Path, typer.Argument(help="A run: its folder, or its name in runs/.", metavar="RUN", callback=existing_run)
]
FieldRun = Annotated[Path, typer.Argument(help="A run on images or sounds.", metavar="RUN", callback=existing_run)]
DataPath = Annotated[Path, typer.Argument(help="Your data: a file or a folder.", metavar="PATH", callback=existing)]

Base = Annotated[
    str,
    typer.Argument(
        help="A run, a folder or hub name of weights, a .gguf, a PEFT folder.", metavar="BASE", callback=base_path
    ),
]

# ----------------------------------------------------------------------------- training: train, tune, distill, align

Modality = Annotated[str | None, typer.Option(help="The kind of data, if it is not clear.")]
Minutes = Annotated[
    float | None,
    typer.Option(help="Minutes for all of it: data, training, measuring and the report.", rich_help_panel=BUDGET),
]
Steps = Annotated[int | None, typer.Option(help="Steps of training.", rich_help_panel=BUDGET)]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers: the same seed gives the same result.")]
Validation = Annotated[
    Path | None, typer.Option(help="Held-out data of your own: a file or a folder.", callback=existing)
]
Force = Annotated[bool, typer.Option("--force", help="Replace a run that is in the output folder.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; the fastest by default.", rich_help_panel=BY_HAND)
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data", help="How data is read, as size=32.", metavar="KEY=VALUE", rich_help_panel=BY_HAND),
]
TrainSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting, as train.lr=0.001 or family.width=256.",
        metavar="KEY=VALUE",
        rich_help_panel=BY_HAND,
    ),
]
Lora = Annotated[
    bool, typer.Option("--lora/--full", help="Learn a small adapter, or everything.", rich_help_panel=ADAPTER)
]
Rank = Annotated[int | None, typer.Option(help="Rank of the adapter; 16 by default.", rich_help_panel=ADAPTER)]
MeasureAtEnd = Annotated[bool, typer.Option("--measure/--no-measure", help="Measure the model at the end.")]
ResultAsJson = Annotated[bool, typer.Option("--json", help="Write the result as JSON to standard output.")]

# ---------------------------------------------------------------------------- sampling: sample, edit, compare, compose

Label = Annotated[
    list[str] | None,
    typer.Option(help="A class; NAME=CLASS if there are several labels.", metavar="CLASS", rich_help_panel=ASKED),
]
Number = Annotated[
    list[str] | None, typer.Option(help="A number by its name.", metavar="NAME=X", rich_help_panel=ASKED)
]
Caption = Annotated[str | None, typer.Option(help="What is to be seen or heard, in words.", rich_help_panel=ASKED)]
Guidance = Annotated[
    list[str] | None,
    typer.Option(
        help="How strongly to follow what is asked for; 1 = as learnt. PART=X for one part: caption=3.",
        metavar="X",
        rich_help_panel=ASKED,
    ),
]
SampleSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting of sampling, as temperature=0.8 or steps=50.", metavar="KEY=VALUE"),
]
Raw = Annotated[
    bool,
    typer.Option("--raw", help="Continue --prompt instead of answering it (chat models).", rich_help_panel=ASKED),
]
SamplesOut = Annotated[
    Path | None,
    typer.Option(
        help="Folder to write to; a .png for one image of all samples, a .wav or .flac for one sound.",
    ),
]
RecordsAsJson = Annotated[bool, typer.Option("--json", help="Write the records as a JSON list to standard output.")]


def clock(measure: bool) -> Clock:
    """The clock of this command, whose minutes include measuring if `measure` is set."""
    from afresh.training.deadline import Clock

    return Clock(STARTED, measure)
