"""The verb `solve`: answer programming tasks and test the answers in a sandbox."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from afresh.core import Score, UserError, events
from afresh.core.plural import counted
from afresh.core.verb import Line, Remark, ShownResult, Table
from afresh.data.files import FileError, named, read_bytes
from afresh.data.tables.rows import read_table
from afresh.domains.code.metrics import CodeTask, held, new_mark, pass_scores, task_of
from afresh.engine.sampling.request import Request
from afresh.runs.run import Run
from afresh.runs.sandbox.processes import Outcome, Sandbox

KS = (1, 10, 100)
MAX_MB = 64  # of the file of tasks, decompressed
SETTINGS: Mapping[str, float | int] = {"temperature": 0.2, "top_p": 0.95, "length": 256}


@dataclass(frozen=True)
class Solved(ShownResult):
    """Scores over tasks, the results of each task, and notes for the user."""

    scores: tuple[Score, ...]
    results: tuple[Mapping[str, Any], ...]  # {task_id, passed, n, outcomes: {status: count}}
    card: Mapping[str, Any]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        scores = ", ".join(f"{s.name} {s.value:.3g}" for s in self.scores)
        return f"Solved({counted(len(self.results), 'task')}: {scores})"

    def json(self) -> dict[str, Any]:
        return {
            "card": dict(self.card),
            "metrics": [asdict(s) for s in self.scores],
            "results": [dict(r) for r in self.results],
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """A table of the scores, and how the answers ended."""
        columns = ["", "value", "interval", "tasks", "better", "reference", "empty"]
        table = Table(columns, [s.row() for s in self.scores], right=(1, 2, 3, 5, 6))
        how = sum((Counter(r["outcomes"]) for r in self.results), Counter[str]())
        ended = ", ".join(f"{name} {count:,}" for name, count in how.most_common())
        return [table, Remark(f"answers: {ended}")]


def read_tasks(path: Path, first: int | None = None) -> list[CodeTask]:
    """Read tasks from a .jsonl file, also as .gz. Raises UserError, naming the line, if a task is invalid."""
    try:
        table = read_table(".jsonl", read_bytes(named(path), MAX_MB), MAX_MB)
    except (OSError, FileError) as error:
        raise UserError(f"The tasks in {path} cannot be read: {error}. Give a .jsonl file, or one as .gz.") from None
    for number, reason in table.bad:
        raise UserError(f"{path}, line {number}: {reason}. Write one task per line, as in MBPP or HumanEval.")
    tasks = [task_of(row, number) for number, row in table.rows]
    if not tasks:
        raise UserError(f"No task in {path}. Write one task per line, as in MBPP or HumanEval.")
    return tasks[:first]


def judge(tasks: Sequence[tuple[CodeTask, str]], sandbox: Sandbox) -> list[tuple[bool, Outcome]]:
    """Whether each answer passes the tests of its task, and how its program ended.

    Raises UserError without a sandbox.
    """
    sandbox.check()

    def one(pair: tuple[CodeTask, str]) -> tuple[bool, Outcome]:
        task, answer = pair
        mark = new_mark()
        outcome = sandbox.run(task.program(answer, mark))
        return outcome.status == "ok" and held(outcome.stdout, mark, 1) == 1, outcome

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, tasks))


def check_runner(tasks: Sequence[CodeTask], sandbox: Sandbox, notes: list[str]) -> tuple[float | None, float]:
    """Validate the tests and the sandbox. Returns the shares of tasks that reference answers and empty answers pass.

    The first share is None if no task has a reference answer.
    """
    known = [t for t in tasks if t.reference is not None]
    real = judge([(t, t.reference or "") for t in known], sandbox)
    empty = judge([(t, "") for t in tasks], sandbox)
    failing = [f"{t.name} ({o.status})" for t, (good, o) in zip(known, real, strict=True) if not good]
    if failing:
        notes.append(f"reference answers of {len(failing)} tasks fail their own tests here: {', '.join(failing[:8])}")
    floor = sum(good for good, _ in real) / len(known) if known else None
    return floor, sum(good for good, _ in empty) / len(tasks)


def draw_answers(
    run: Run, tasks: Sequence[CodeTask], n: int, seed: int, settings: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Sample n answers to each task in turn. Also returns notes on prompts that were truncated."""
    prompts = [t.prompt for t in tasks for _ in range(n)]
    part = run.conds.get("language")
    python = part is not None and "python" in part.classes
    request = Request(prompts, {"language": "python"} if python else None)
    cond, _, notes = run.condition(len(prompts), request, seed)
    x = run.draw(run.modules, cond, seed, run.settings(settings))
    texts = run.encoder.decode(x)
    return [t.answer(text) for t, text in zip((t for t in tasks for _ in range(n)), texts, strict=True)], notes


def solve_tasks(
    run: Run,
    path: Path,
    n: int = 1,
    *,
    first: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    sandbox: Sandbox | None = None,
) -> Solved:
    """Score a run by pass@1, pass@10 and pass@100, as far as n answers per task allow, on the `first` tasks of `path`.

    The scores of reference answers (`floor`) and of empty answers (`control`) are reported for comparison. Raises
    UserError for tasks that cannot be read, a run that does not make text, n < 1, and if there is no sandbox.
    """
    if n < 1:
        raise UserError(f"At least one answer per task is required. Given: -n {n}.")
    if not run.space.stream:
        raise UserError(
            f"{run.path} makes {run.record.modality}, not text, so it cannot answer programming tasks. Give a run on "
            "code."
        )
    tasks = read_tasks(path, first)
    box = sandbox or Sandbox()
    box.check()  # before spending minutes on answers
    chosen = {**SETTINGS, **(settings or {})}
    notes: list[str] = []
    events.note(f"checking the tests of {len(tasks):,} tasks with reference answers and with empty ones")
    floor, control = check_runner(tasks, box, notes)
    events.note(f"sampling {n:,} answers to each task")
    answers, cut = draw_answers(run, tasks, n, seed, chosen)
    events.note(f"running {len(answers):,} programs")
    ended = judge(list(zip((t for t in tasks for _ in range(n)), answers, strict=True)), box)
    results, correct = [], []
    for i, task in enumerate(tasks):
        outcomes = ended[i * n : (i + 1) * n]
        correct.append(sum(good for good, _ in outcomes))
        how = Counter("passed" if good else o.status if o.status != "ok" else "error" for good, o in outcomes)
        results.append({"task_id": task.name, "passed": correct[-1], "n": n, "outcomes": dict(how)})
    card = {
        "tasks": hashlib.sha256("".join(t.name + t.prompt + t.setup + t.tests for t in tasks).encode()).hexdigest()[
            :16
        ],
        "count": len(tasks),
        "n": n,
        "seed": seed,
        "sampling": {**chosen},
        "limits": asdict(box.limits),
    }
    return Solved(tuple(pass_scores(correct, n, KS, floor, control)), tuple(results), card, tuple(notes + cut))
