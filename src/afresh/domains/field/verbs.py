"""The verbs of fields: `rollout` and `assimilate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from afresh.core.verb import Argument, Option, Setting, UploadedFile, verb
from afresh.verbs.options import Seed, Settings

if TYPE_CHECKING:
    from afresh.domains.field.assimilation import Assimilation
    from afresh.domains.field.rollout import Rollout
    from afresh.runs.run import Run

FILE = Option("", metavar="FILE", shell=Path, json=UploadedFile | None)
START = replace(FILE, flags=("--from",))
StatesFormat = Annotated[
    Literal["npz", "netcdf"], Option("The format of the states: `npz`, or `netcdf` with the extra science.")
]


def why_not(run: Run) -> str | None:
    """None for runs whose samples follow a state."""
    from afresh.domains.field.encoder import FieldEncoder

    if isinstance(run.encoder, FieldEncoder) and any(part.persists for part in run.conds.values()):
        return None
    return "it was not trained on states that follow one another: rollouts are of fields in time"


@verb(
    "rollout",
    able=why_not,
    result="{keep, steps, members, step, stopped, departure, spread, files, notes}",
    summary="roll a field out in time",
    files="The folder for the states, an animation and plots.",
    works=True,
    shown=True,
)
def rollout(
    run: Run,
    start: Annotated[
        str | Path | None,
        replace(
            START,
            help="The state to begin with: a file of the kind that the run learnt from. Without it, held-out ones.",
            metavar="STATE",
        ),
    ] = None,
    *,
    steps: Annotated[
        int, Ge(1), Le(1_000_000), Option("States that follow.", json=Annotated[int, Ge(1), Le(1_000)])
    ] = 100,
    members: Annotated[
        int, Ge(1), Le(4096), Option("Futures that are drawn.", json=Annotated[int, Ge(1), Le(64)])
    ] = 16,
    at: Annotated[int, Ge(0), Setting("The state of the file to begin with, counted from 0.", metavar="K")] = 0,
    trajectory: Annotated[int, Ge(0), Setting("The trajectory of the file to begin with.", metavar="K")] = 0,
    format: StatesFormat = "npz",
    keep: Annotated[
        int | None,
        Ge(1),
        Setting("Steps for which a future keeps its noise; by default those that the report favours.", metavar="K"),
    ] = None,
    anyway: Annotated[bool, Setting("Go on after a member has left what was seen in training.")] = False,
    seed: Annotated[int, Option("The same seed gives the same futures.")] = 0,
) -> Rollout:
    """Roll a field out in time: many futures of one state, each as likely as the model finds it.

    The states are written with their mean and deviation, an animation, and spectra. A rollout ends before its last step
    where a member leaves what was seen in training, with the reason.

    Raises UserError if the state cannot be read or does not fit the run.
    """
    from afresh.domains.field.rollout import roll_out_from

    return roll_out_from(run, start, steps, members, at, trajectory, format, anyway, seed, keep)


def why_no_observations(run: Run) -> str | None:
    """None for runs on fields of a family whose samples can follow observations."""
    from afresh.domains.field.assimilation import why_not
    from afresh.domains.field.encoder import FieldEncoder

    return why_not(run) if isinstance(run.encoder, FieldEncoder) else "it was not trained on fields"


@verb(
    "assimilate",
    able=why_no_observations,
    result="{members, observations, chi_square, spread, numbers, scores, files, notes}",
    summary="states given observations of them",
    files="The folder for the states and a picture.",
    works=True,
    shown=True,
)
def assimilate(
    run: Run,
    observations: Annotated[
        str | Path,
        Argument(
            "A file with an array of the shape of the states, with NaN where nothing was observed, or of a coarser "
            "grid, whose values are means of blocks of points.",
            metavar="FILE",
            shell=Path,
            json=UploadedFile,
        ),
    ],
    *,
    noise: Annotated[
        Sequence[float],
        Option("The standard deviation of the noise in the units of the data; may be repeated, for each channel."),
    ],
    members: Annotated[int, Ge(2), Le(4096), Option("States that are drawn.")] = 32,
    truth: Annotated[
        str | Path | None, replace(FILE, help="The true state, which is compared with the members.")
    ] = None,
    start: Annotated[
        str | Path | None,
        replace(START, help="A file with earlier states, inputs and parameters."),
    ] = None,
    at: Annotated[int, Ge(0), Setting("The last state before the observations, counted from 0.", metavar="K")] = 0,
    trajectory: Annotated[int, Ge(0), Setting("The trajectory of the file with the states before.", metavar="K")] = 0,
    iterations: Annotated[
        int, Ge(1), Le(1024), Setting("Of the solver of the linear system between the observations, in every step.")
    ] = 8,
    format: StatesFormat = "npz",
    settings: Settings = None,
    seed: Seed = 0,
) -> Assimilation:
    """Draw states given noisy observations of them: at some of the points, or on a coarser grid.

    The members are draws of the posterior whose prior is the run. They are written with their mean, deviation
    and a picture, and checked: what they leave of the observations is to be as large as the noise.

    Raises UserError if the observations cannot be read or do not fit the run, and if the run cannot follow them.
    """
    from afresh.domains.field.assimilation import assimilated

    return assimilated(
        run, observations, noise, truth, members, iterations, start, at, trajectory, format, settings, seed
    )
