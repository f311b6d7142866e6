"""The verbs of series: `forecast`, `fill` and `anomalies`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from afresh.core.verb import Option, Setting, UploadedFile, verb
from afresh.verbs.options import TableFormat

if TYPE_CHECKING:
    from afresh.domains.series.anomalies import Anomalies
    from afresh.domains.series.fill import Filled
    from afresh.domains.series.forecast import Forecast
    from afresh.runs.run import Run

COLUMNS = dict[str, list[float | str | None]] | None  # a table in JSON
SOURCE = Option(
    "The table that is to go on, of the kind that the run learnt from. Without it, that of the run.",
    flags=("--from",),
    metavar="FILE",
    shell=Path,
    json=UploadedFile | COLUMNS,
    python="Also a table as columns, {name: values}.",
)


def why_not(run: Run) -> str | None:
    """None for runs whose samples have known values that stay."""
    if any(part.scaled for part in run.conds.values()):
        return None
    return "it was not trained on series in a table with times"


@verb(
    "forecast",
    able=why_not,
    result="{members, horizon, series, files, notes}",
    summary="What comes after a series, with its uncertainty",
    files="The folder for the quantiles and a picture.",
    works=True,
)
def forecast(
    run: Run,
    start: Annotated[str | Path | Mapping[str, Sequence[Any]] | None, replace(SOURCE, json=COLUMNS)] = None,
    *,
    horizon: Annotated[
        int | None, Ge(1), Le(100_000), Option("Steps that are forecast; as many as in training by default.")
    ] = None,
    members: Annotated[int, Ge(2), Le(4096), Option("Futures that are drawn.")] = 100,
    given: Annotated[
        str | Path | Mapping[str, Sequence[Any]] | None,
        Option(
            "A table of what is known of the future: columns known in advance, or values of a scenario.",
            metavar="FUTURE",
            shell=Path,
            json=COLUMNS,
            python="Also columns, {name: values}.",
        ),
    ] = None,
    keep: Annotated[bool, Setting("Write the futures themselves as well.")] = False,
    format: Annotated[TableFormat, Option("The format of tables: `csv` or `parquet`.")] = "csv",
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


@verb(
    "fill",
    able=why_not,
    result="{filled, members, files, notes}",
    summary="fill the gaps of a series, with their uncertainty",
    files="The folder for the filled table and the intervals of what was filled.",
    works=True,
)
def fill(
    run: Run,
    start: Annotated[str | Path | Mapping[str, Sequence[Any]] | None, SOURCE] = None,
    *,
    members: Annotated[int, Ge(2), Le(4096), Option("Draws of each gap.")] = 50,
    format: Annotated[TableFormat, Option("The format of tables: `csv` or `parquet`.")] = "csv",
    seed: Annotated[int, Option("The same seed gives the same values.")] = 0,
) -> Filled:
    """Fill the gaps of a series: each by the mean of what the run draws between what is known, and with its interval.

    Raises UserError if the table cannot be read, lacks a column of the run, or has no gap.
    """
    from afresh.domains.series.fill import fill_from

    return fill_from(run, start, members, format, seed)


@verb(
    "anomalies",
    able=why_not,
    result="{scored, most, files, notes}",
    summary="find values of a series that were unlikely",
    files="The folder for the table of scores.",
)
def anomalies(
    run: Run,
    start: Annotated[str | Path | Mapping[str, Sequence[Any]] | None, SOURCE] = None,
    *,
    members: Annotated[int, Ge(10), Le(4096), Option("Futures by which a value is judged.")] = 100,
    ahead: Annotated[
        int | None, Ge(1), Setting("Steps from one forecast to the next; the horizon of the run by default.")
    ] = None,
    format: Annotated[TableFormat, Option("The format of tables: `csv` or `parquet`.")] = "csv",
    seed: Annotated[int, Option("The same seed gives the same scores.")] = 0,
) -> Anomalies:
    """Find values that were unlikely before they came.

    Each value after the first context is judged by a forecast from at most `ahead` steps before it. `distance` is how
    far it is from the median, in deviations of the forecast on its side; `chance` is that of a value that is as far
    out or further, on either side, and not below 2 / (members + 1).

    Raises UserError if the table cannot be read, lacks a column of the run, or has no series longer than the context.
    """
    from afresh.domains.series.anomalies import anomalies_from

    return anomalies_from(run, start, members, ahead, format, seed)
