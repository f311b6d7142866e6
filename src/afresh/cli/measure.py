"""`afresh measure`: how good a run is, in numbers under a protocol card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note, say, table

if TYPE_CHECKING:
    from afresh.evaluation.study import Measurement
    from afresh.evaluation.verdict import Verdict


def measure(
    run: o.Run,
    data: Annotated[Path | None, typer.Option(help="Judge on this data, in place of the held-out split.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Samples to draw; as many as are held out if not given.")] = None,
    as_json: Annotated[bool, o.json_of("{verdict, card, metrics, ...}")] = False,
) -> None:
    """Measure a run: every number with its interval, beside real data (floor) and a trivial model (control)."""
    from afresh.runs.run import Run
    from afresh.verbs.measure import measure_run
    from afresh.verbs.report import run_verdict, write_run_report

    found = Run.open(run)
    measured = measure_run(found, data, n)
    if data is None:
        say(f"report: {write_run_report(found, measured)}")
    verdict = run_verdict(found, measured)
    if as_json:
        emit({"verdict": verdict.json(), **measured.json()})
    else:
        show_verdict(verdict)
        show_measurement(measured)


def show_verdict(verdict: Verdict) -> None:
    """The verdict in a word, why, and what would help most, with its command on a line of its own."""
    answer(f"verdict: {verdict.word}. {verdict.sentence}")
    answer(f"what would help most: {verdict.help}")
    if verdict.command:
        answer(f"    {verdict.command}")


def show_measurement(measured: Measurement) -> None:
    """A table of the scores, what was not measured, and the card."""
    columns = ["", "value", "interval", "n", "better", "real data", "control"]
    if measured.scores:
        answer(table(columns, [s.row() for s in measured.scores], right=(1, 2, 3, 5, 6), wrap=(0,)))
    for line in not_measured(measured.skipped):
        say(line)
    note(*measured.notes)
    card = measured.card
    say(
        f"card {card.id}: {card.samples:,} samples against {card.reference_size:,} of the {card.reference}, split "
        f"{card.split[:12]}, seed {card.seed}"
    )


def not_measured(skipped: Mapping[str, str]) -> list[str]:
    """One line a reason."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return [f"not measured: {', '.join(found)} ({reason})" for reason, found in names.items()]
