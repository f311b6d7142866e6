"""Arguments and options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from afresh.core.minutes import minutes_of
from afresh.faces.cli import completion
from afresh.faces.cli.paths import existing, existing_run

BY_HAND = "Set by hand"
SETTINGS = "Settings"  # the panel of options that are typed as --set NAME=VALUE
# Options that mean the same for every command that has them.
COMMON = {
    "--device": "cpu, cuda, cuda:1 or mps; the fastest by default.",
    "--folder": "The folder of the catalogue; catalogue by default.",
    "--force": "Replace what is at the place of --out already.",
    "--json": "Write each event as a line of JSON, and the result last, with the fields that each command names.",
    "--label-ai": "Say for people that AI made it: letters in images, a notice before the rest.",
    "--log": "Also log curves and samples to tensorboard, trackio or wandb; may be repeated.",
    "--no-marks": "Neither mark nor sign what is made; its record says so.",
    "--on": "A Ray cluster whose machines do it instead: ray://HOST, or local.",
    "--processes": "How many processes of each machine share the work.",
    "--seed": "Seed of all random numbers: the same seed gives the same result; 0 by default.",
    "--set": "A setting, as KEY=VALUE; may be repeated. --set help explains those of the command.",
    "--trust": "Trust a run or a data set from another user: run and read what it names.",
    "--verbose": "Show every decision about the data and the plan, with its reason.",
}


def option(
    help: str,
    panel: str | None = None,
    *flags: str,
    metavar: str | None = None,
    complete: Callable[..., list[str]] | None = None,
) -> Any:
    """An option in a panel of the help, by its parameter's name unless it has other `flags`."""
    return typer.Option(*flags, help=help, metavar=metavar, rich_help_panel=panel, autocompletion=complete)


def setting(help: str, metavar: str | None = None, **more: Any) -> Any:
    """A setting of a command: --set NAME=VALUE."""
    return typer.Option(help=help, metavar=metavar, rich_help_panel=SETTINGS, **more)


def common(flag: str) -> Any:
    """A common option that takes no value."""
    return typer.Option(flag, help=COMMON[flag])


def run_argument(help: str, metavar: str = "RUN") -> Any:
    """An argument that names a run."""
    return typer.Argument(help=help, metavar=metavar, callback=existing_run, autocompletion=completion.runs)


DataPath = Annotated[Path, typer.Argument(help="Your data: a file or a folder.", metavar="PATH", callback=existing)]


def json_of(result: str) -> Any:
    """The option `--json` of a command with a `result` of these fields."""
    return typer.Option("--json", help=f"Write each event as a line of JSON, and the result last: {result}.")


Modality = Annotated[str | None, option("The kind of data, if it is not clear.", complete=completion.modalities)]


def minutes_setting(help: str, name: str) -> Any:
    """A setting for a length of time: 5, 0.5, 90s, 2m, 1h30m."""
    return setting(f"{help} 5, 0.5, 90s, 2m, 1h30m.", "MINUTES", parser=partial(minutes_of, name=name))


def open_option(help: str, panel: str | None = None) -> Any:
    """The option of a command that opens a page in the browser."""
    return option(help, panel, "--open/--no-open")


Seed = Annotated[int, option("Seed of all random numbers: the same seed gives the same result.")]
Validation = Annotated[
    Path | None, typer.Option(help="Held-out data of your own: a file or a folder.", callback=existing)
]
Force = Annotated[bool, common("--force")]
LabelAi = Annotated[bool, common("--label-ai")]
Trust = Annotated[bool, common("--trust")]
On = Annotated[str | None, option(COMMON["--on"], None, "--on", metavar="ADDRESS")]
Port = Annotated[int, typer.Option(help="Port; 0 = a free one.", min=0, max=65535)]
TrustSigner = Annotated[
    Path | None, option("A file of certificates in PEM, whose signers are known from now on.", metavar="CERT.pem")
]
Unmarked = Annotated[bool, common("--no-marks")]
DataOptions = Annotated[
    list[str] | None,
    option("How data is read, as size=32.", BY_HAND, "--data", metavar="KEY=VALUE", complete=completion.data_options),
]


SamplesOut = Annotated[
    Path | None, option("Folder to write to; a .png for one image of all samples, a .wav or .flac for one sound.")
]
