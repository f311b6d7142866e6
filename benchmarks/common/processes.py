"""Contenders in processes of their own: how they are started, what they are asked and what they answer.

A contender is `python -m MODULE FOLDER`. FOLDER/ask.json says what is asked of it, FOLDER/answer.json what became of
it; what it makes lies beside them. Needs the standard library alone, since a peer may have an environment of its own,
whose Python is given to `ask`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.common.folders import ROOT, write_json

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Answer:
    """What a contender that draws items has learnt. `rate`: items a second of training; `batch` and `alone`: seconds of
    drawing for an item (of a sound: for a second of it), all at once and one by one."""

    recipe: str
    parameters: int
    steps: int
    seconds: float
    rate: float
    batch: float
    alone: float = 0.0


def start(
    arguments: Sequence[str],
    log: Path,
    core: int | None = None,
    threads: int | None = None,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """`python -m ARGUMENTS`; what it prints is added to the file. With `core` it has that processor alone, so that
    contenders side by side meet the same machine, and one thread; otherwise `threads`, or as many as it takes."""
    plain = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | {"PYTHONPATH": str(ROOT)}
    count = 1 if core is not None else threads
    limits = {} if count is None else {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}
    command, pin = [python, "-m", *arguments], None
    if core is not None:
        cores = sorted(os.sched_getaffinity(0))
        only = {cores[core % len(cores)]}

        def pin() -> None:
            os.sched_setaffinity(0, only)

    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=ROOT, env={**plain, **limits, **(environment or {})}, stdout=out, stderr=out, preexec_fn=pin
        )


def finish(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it printed. Raises RuntimeError with the end of that when it failed."""
    code = process.wait()
    text = log.read_text(errors="replace")
    if code:
        raise RuntimeError(f"exit code {code} of {process.args!r}:\n{text[-2000:]}")
    return text


def run(arguments: Sequence[str], log: Path, **how: Any) -> str:
    """`start` and `finish`."""
    return finish(start(arguments, log, **how), log)


def ask(module: str, request: Any, folder: Path, **how: Any) -> dict[str, Any]:
    """The answer of a contender to a request, a dataclass. `how`: as `start` takes it. Raises RuntimeError when the
    contender fails."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ask.json", asdict(request))
    run([module, str(folder)], folder / "log", **how)
    answered: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answered


def answer(kind: type[Asked], work: Callable[[Asked, Path], Any]) -> None:
    """The other side of `ask`: what `work` makes of the request and the folder, a dataclass or a dictionary."""
    folder = Path(sys.argv[1])
    made = work(kind(**json.loads((folder / "ask.json").read_text())), folder)
    write_json(folder / "answer.json", made if isinstance(made, dict) else asdict(made))
