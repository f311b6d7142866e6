"""The verbs of series: `forecast`, `impute` and `anomalies`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from afresh.core.verb import Absent, Option, verb

if TYPE_CHECKING:
    from afresh.domains.series.forecast import Forecast
    from afresh.runs.run import Run

SOURCE = Option(
    "The table that is to go on, of the kind that the run learnt from. Without it, that of the run.",
    flags=("--from",),
    metavar="FILE",
    shell=Path,
    json=Absent,
)


def why_not(run: Run) -> str | None:
    """None for runs on series."""
    return None if run.record.modality == "series" else "it was not trained on series in a table with times"


@verb(
    "forecast",
    able=why_not,
    result="{members, horizon, series, files, notes}",
    summary="say what comes after a series, with its uncertainty",
    served=False,
    files="The folder for the quantiles and a picture.",
)
def forecast(
    run: Run,
    start: Annotated[str | Path | None, SOURCE] = None,
    *,
    horizon: Annotated[
        int | None, Ge(1), Le(100_000), Option("Steps that are forecast; as many as in training by default.")
    ] = None,
    members: Annotated[int, Ge(2), Le(4096), Option("Futures that are drawn.")] = 100,
    given: Annotated[
        str | Path | None,
        Option(
            "A table of what is known of the future: columns known in advance, or values of a scenario.",
            metavar="FUTURE",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    keep: Annotated[bool, Option("Write the futures themselves as well.")] = False,
    format: Annotated[str, Option("The format of tables: `csv` or `parquet`.")] = "csv",
    seed: Annotated[int, Option("The same seed gives the same futures.")] = 0,
) -> Forecast:
    """Say what comes after a series: many futures, each as likely as the model finds it.

    Quantiles of each step are written as a table, and drawn as a fan. Beyond the horizon of training, each future goes
    on after itself.

    Raises UserError if the table cannot be read or lacks a column of the run, and if a column that is known in advance
    is not known.
    """
    from afresh.domains.series.forecast import forecast_from

    return forecast_from(run, start, horizon, members, given, keep, format, seed)
