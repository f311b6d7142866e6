"""`afresh measure`: how good a run is, in numbers under a protocol card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.core.verb import Option, verb

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.measuring import Measured


@verb("measure", result="{verdict, card, metrics, ...}", served=False)
def measure(
    run: Run,
    data: Annotated[
        str | Path | None, Option("Judge on this data, in place of the held-out split.", shell=Path)
    ] = None,
    n: Annotated[int | None, Option("Samples to draw; as many as are held out if not given.", flags=("-n",))] = None,
) -> Measured:
    """Measure a run: every number with its interval, beside real data (floor) and a trivial model (control).

    Raises UserError if the data is missing, or `n` is below 2.
    """
    from afresh.core import events
    from afresh.runs.run_store import place
    from afresh.verbs.measuring import Measured, measure_run
    from afresh.verbs.report import run_verdict, write_run_report

    measurement = measure_run(run, None if data is None else Path(data), n)
    if data is None:
        events.note(f"report: {place(run.path)}/{write_run_report(run, measurement).name}")
    return Measured(run_verdict(run, measurement), measurement)
