"""The verb of source code: `solve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from afresh.core.verb import Absent, Argument, Option, Setting, verb

if TYPE_CHECKING:
    from afresh.domains.code.solve import Solved
    from afresh.runs.run import Run


@verb("solve", result="{card, metrics, results, notes}", served=False)
def solve(
    run: Run,
    tasks: Annotated[
        str | Path, Argument("A .jsonl (.gz) of MBPP's or HumanEval's form.", metavar="TASKS", shell=Path, json=Absent)
    ],
    n: Annotated[int, Option("Answers to each task; 10 are needed for pass@10.", flags=("-n",))] = 1,
    *,
    first: Annotated[int | None, Ge(1), Setting("Only the first K tasks.", metavar="K")] = None,
    temperature: Annotated[float, Option("0 = the likeliest.")] = 0.2,
    top_p: Annotated[float, Setting("Only the likeliest P of mass.")] = 0.95,
    length: Annotated[int, Option("Tokens of an answer, at most.")] = 256,
    seconds: Annotated[float, Ge(0.1), Setting("Time that one program may take.")] = 5.0,
    seed: Annotated[int, Option("The same seed gives the same answers.")] = 0,
) -> Solved:
    """The share of programming tasks that a run solves: pass@1, and pass@10 with `n=10`.

    Each answer is run against its task's tests in a sandbox: no network, nothing outside its own folder, bounded time,
    memory and processes. Where the sandbox cannot be had, nothing is run.

    Raises UserError if the tasks cannot be read, if the model does not make text, and if no sandbox is available.
    """
    from afresh.domains.code.solve import solve_tasks
    from afresh.runs.sandbox.processes import Sandbox, SandboxLimits

    settings = {"temperature": temperature, "top_p": top_p, "length": length}
    return solve_tasks(
        run, Path(tasks), n, first=first, seed=seed, settings=settings, sandbox=Sandbox(SandboxLimits(seconds=seconds))
    )
