"""Arguments and options that several verbs share."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.minutes import minutes_of
from afresh.faces.cli import completion
from afresh.faces.cli.paths import base_path, existing, existing_run

if TYPE_CHECKING:
    from afresh.engine.training.training_clock import Clock

STARTED = time.monotonic()  # when the command line was imported, which is soon after the command began
ASKED = "What is asked for"
BY_HAND = "Set by hand"
BUDGET = "Budget (one of them)"
ADAPTER = "Adapter"


def known_logs(names: list[str] | None) -> list[str]:
    """The names of --log. Raises UserError before anything is spent if one of them cannot be used."""
    if names:
        from afresh.engine.training.logs.run_log import check_logs

        check_logs(names)
    return names or []


def option(
    help: str,
    panel: str | None = None,
    *flags: str,
    metavar: str | None = None,
    complete: Callable[..., list[str]] | None = None,
) -> Any:
    """An option in a panel of the help, by its parameter's name unless it has other `flags`."""
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=panel, autocompletion=complete)


def run_argument(help: str, metavar: str = "RUN") -> Any:
    """An argument that names a run."""
    return typer.Argument(help=help, metavar=metavar, callback=existing_run, autocompletion=completion.runs)


Run = Annotated[Path, run_argument("A run: its folder, or its name in runs/.")]
DataPath = Annotated[Path, typer.Argument(help="Your data: a file or a folder.", metavar="PATH", callback=existing)]

Base = Annotated[
    str,
    typer.Argument(
        help="A run, a folder or hub name of weights, a .gguf, a PEFT folder.",
        metavar="BASE",
        callback=base_path,
        autocompletion=completion.runs,
    ),
]


def json_of(result: str) -> Any:
    """The option `--json` of a command with a `result` of these fields."""
    return typer.Option("--json", help=f"Write each event as a line of JSON, and the result last: {result}.")


# ----------------------------------------------------------------------------- training: train, tune, distill, align

Modality = Annotated[str | None, option("The kind of data, if it is not clear.", complete=completion.modalities)]


def minutes_option(help: str, name: str = "minutes", panel: str | None = None) -> Any:
    """An option for a length of time: 5, 0.5, 90s, 2m, 1h30m."""
    parser = partial(minutes_of, name=name)
    return typer.Option(help=f"{help} 5, 0.5, 90s, 2m, 1h30m.", metavar="MINUTES", parser=parser, rich_help_panel=panel)


def open_option(help: str, panel: str | None = None) -> Any:
    """The option of a command that opens a page in the browser."""
    return option(help, panel, "--open/--no-open")


Minutes = Annotated[
    float | None, minutes_option("Minutes for all of it (data, training, measuring, the report):", panel=BUDGET)
]
Steps = Annotated[int | None, option("Steps of training.", BUDGET)]
Seed = Annotated[int, option("Seed of all random numbers: the same seed gives the same result.")]
Validation = Annotated[
    Path | None, typer.Option(help="Held-out data of your own: a file or a folder.", callback=existing)
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is at the place of --out already.")]
LabelAi = Annotated[
    bool,
    typer.Option("--label-ai", help="Say for people that AI made it: letters in images, a notice before the rest."),
]
Unmarked = Annotated[
    bool,
    typer.Option("--no-marks", help="Neither mark nor sign what is made; its record says so."),
]
Device = Annotated[str | None, option("cpu, cuda, cuda:1 or mps; the fastest by default.", BY_HAND)]
Processes = Annotated[
    int,
    typer.Option(
        help="How many processes train together, each a part of every batch.",
        min=1,
        rich_help_panel=BY_HAND,
    ),
]
On = Annotated[
    str | None,
    option("A Ray cluster whose machines train instead: ray://HOST, or local.", BY_HAND, "--on", metavar="ADDRESS"),
]
DataOptions = Annotated[
    list[str] | None,
    option("How data is read, as size=32.", BY_HAND, "--data", metavar="KEY=VALUE", complete=completion.data_options),
]


def setting_option(help: str, complete: Callable[..., list[str]], panel: str | None = None) -> Any:
    return option(help, panel, "--set", metavar="KEY=VALUE", complete=complete)


TrainSettings = Annotated[
    list[str] | None,
    setting_option("A setting, as train.lr=0.001 or family.width=256.", completion.train_settings, BY_HAND),
]
AlignSettings = Annotated[
    list[str] | None,
    setting_option("A setting, as align.group=8 or train.lr=0.001.", completion.align_settings, BY_HAND),
]
Lora = Annotated[bool, option("Learn a small adapter, or everything.", ADAPTER, "--lora/--full")]
Rank = Annotated[int | None, option("Rank of the adapter; 16 by default.", ADAPTER)]
Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Also log curves and samples to tensorboard, trackio or wandb; may be repeated.",
        metavar="NAME",
        rich_help_panel=BY_HAND,
        callback=known_logs,
        autocompletion=completion.logs,
    ),
]
MeasureAtEnd = Annotated[bool, typer.Option("--measure/--no-measure", help="Measure the model at the end.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show every decision about the data and the plan, with its reason.")
]
ResultAsJson = Annotated[bool, json_of("{run, steps, heldout_loss, seconds, ...}")]

SamplesOut = Annotated[
    Path | None, option("Folder to write to; a .png for one image of all samples, a .wav or .flac for one sound.")
]


def clock(measure: bool) -> Clock:
    """The clock of this command, whose minutes include measuring if `measure` is set."""
    from afresh.engine.training.training_clock import Clock

    return Clock(STARTED, measure)
