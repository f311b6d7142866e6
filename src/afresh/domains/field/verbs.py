"""The verb of fields: `rollout`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from afresh.core.verb import Absent, Option, verb

if TYPE_CHECKING:
    from afresh.domains.field.rollout import Rollout
    from afresh.runs.run import Run


def why_not(run: Run) -> str | None:
    """None for runs whose samples follow a state."""
    if any(part.persists for part in run.conds.values()):
        return None
    return "it was not trained on states that follow one another: rollouts are of fields in time"


@verb(
    "rollout",
    able=why_not,
    result="{keep, steps, members, step, stopped, departure, spread, files, notes}",
    summary="roll a field out in time",
    served=False,
    files="The folder for the states, an animation and plots.",
)
def rollout(
    run: Run,
    start: Annotated[
        str | Path | None,
        Option(
            "The state to begin with: a file of the kind that the run learnt from. Without it, held-out ones.",
            flags=("--from",),
            metavar="STATE",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    *,
    steps: Annotated[int, Ge(1), Le(1_000_000), Option("States that follow.")] = 100,
    members: Annotated[int, Ge(1), Le(4096), Option("Futures that are drawn.")] = 16,
    at: Annotated[int, Ge(0), Option("The state of the file to begin with, counted from 0.", metavar="K")] = 0,
    trajectory: Annotated[int, Ge(0), Option("The trajectory of the file to begin with.", metavar="K")] = 0,
    format: Annotated[str, Option("The format of the states: `npz`, or `netcdf` with the extra science.")] = "npz",
    keep: Annotated[
        int | None,
        Ge(1),
        Option("Steps for which a future keeps its noise; by default those that the report favours.", metavar="K"),
    ] = None,
    anyway: Annotated[bool, Option("Go on after a member has left what was seen in training.")] = False,
    seed: Annotated[int, Option("The same seed gives the same futures.")] = 0,
) -> Rollout:
    """Roll a field out in time: many futures of one state, each as likely as the model finds it.

    The states are written with their mean and deviation, an animation, and spectra. A rollout ends before its last step
    where a member leaves what was seen in training, with the reason.

    Raises UserError if the state cannot be read or does not fit the run.
    """
    from afresh.domains.field.rollout import roll_out_from

    return roll_out_from(run, start, steps, members, at, trajectory, format, anyway, seed, keep)
