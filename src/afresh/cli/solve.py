"""`afresh solve`: programming tasks with tests, answered by a run and checked in the sandbox."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note, say, table


def solve(
    run: o.Run,
    tasks: Annotated[Path, typer.Argument(help="A .jsonl (.gz) of MBPP's or HumanEval's form.", metavar="TASKS")],
    n: Annotated[int, typer.Option("-n", help="Answers to each task; 10 are needed for pass@10.")] = 1,
    first: Annotated[int | None, typer.Option(help="Only the first K tasks.", metavar="K", min=1)] = None,
    temperature: Annotated[float, typer.Option(help="0 = the likeliest.")] = 0.2,
    top_p: Annotated[float, typer.Option(help="Only the likeliest P of mass.")] = 0.95,
    length: Annotated[int, typer.Option(help="Tokens of an answer, at most.")] = 256,
    seconds: Annotated[float, typer.Option(help="Time that one program may take.", min=0.1)] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    as_json: Annotated[bool, o.json_of("{card, metrics, results, notes}")] = False,
) -> None:
    """The share of programming tasks that a run solves: pass@1, and pass@10 with -n 10.

    Each answer is run against its task's tests in a sandbox: no network, nothing outside its own folder, bounded time,
    memory and processes. Where the sandbox cannot be had, nothing is run.
    """
    from afresh.cli.measure import row
    from afresh.domains.code.solve import solve as solved_by
    from afresh.runs.run import Run
    from afresh.sandbox.processes import Limits, Sandbox

    settings = {"temperature": temperature, "top_p": top_p, "length": length}
    box = Sandbox(Limits(seconds=seconds))
    found = solved_by(Run.open(run), tasks, n, first=first, seed=seed, settings=settings, sandbox=box, say=say)
    note(*found.notes)
    if as_json:
        emit(found.json())
        return
    columns = ["", "value", "interval", "tasks", "better", "reference", "empty"]
    answer(table(columns, [row(s) for s in found.scores], right=(1, 2, 3, 5, 6)))
    how = sum((Counter(r["outcomes"]) for r in found.results), Counter())
    say("answers: " + ", ".join(f"{name} {count:,}" for name, count in how.most_common()))
