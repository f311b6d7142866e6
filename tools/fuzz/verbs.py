"""What is done with a changed run: it works, or says in a UserError what is wrong. Anything else is a fault."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from afresh.api import Model
from afresh.core import UserError, events, registry
from afresh.core.errors import Diverged
from afresh.engine.training import loop
from afresh.faces.cli.show_run import facts, show_run
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from afresh.verbs.exporting import ExportOptions, export_run
from afresh.verbs.measuring import measure_run
from afresh.verbs.report import section, stopped, write_run_report
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
from afresh.verbs.verify import verify

SECONDS = 30  # of the processor that a verb may take with a tiny run


class Enough(BaseException):
    """Raised to end training."""


class Hangs(BaseException):
    """Raised in a verb that takes too long. No handler of errors catches it."""


def open_and_summarise(run: Path) -> None:
    found = Run.open(run)
    AboutRun(found).lines()
    AboutRun(found).json()
    facts(run)
    stopped(found)
    section(found, [])
    with redirect_stdout(io.StringIO()):
        show_run(run, False)
    str(found.conditions.size + len(found.space.shape))


def able(verb: str, model: Model) -> bool:
    return registry.verb(verb).able(model.run) is None


def use(run: Path) -> None:
    """What the run is for: recommendations, practice, or an example that is changed."""
    model = Model(Run.open(run))
    if able("recommend", model):
        model.recommend(histories=[["item 1", "item 2"], []], k=3, because=1)
    elif able("practise", model):
        model.practise(history=[("add-1", True), ("add-2", False)])
    else:
        model.edit(list(drawn(model)), strength=0.5)


def drawn(model: Model) -> Any:
    """Two short and quick samples."""
    settings = model.run.family.sampling.settings.model_fields  # type: ignore[attr-defined]
    small: dict[str, Any] = {"steps": 1} if "steps" in settings else {}
    return model.sample(2, **small, **({"length": 4} if "length" in settings else {}))


def sample(run: Path) -> None:
    drawn(Model(Run.open(run)))


def score(run: Path) -> None:
    """How likely the run finds what it draws itself."""
    model = Model(Run.open(run))
    model.score(list(drawn(model)))


def check(run: Path) -> None:
    assert all(isinstance(c.detail, str) for c in verify(Run.open(run)))


def report(run: Path) -> None:
    write_run_report(Run.open(run), None)


def go_out(run: Path) -> None:
    with TemporaryDirectory() as folder:
        export_run(Run.open(run), "safetensors", Path(folder) / "out", ExportOptions())


def measure(run: Path) -> None:
    measure_run(Run.open(run), n=2, seconds=0.5)


def go_on(run: Path) -> None:
    with stepped(2):
        learn(resume(run, trust=True))


@contextmanager
def stepped(most: int) -> Iterator[None]:
    """End training in the block after a few steps, however many a changed file asks for."""
    taken = 0

    def take(*arguments: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken > most:
            raise Enough
        return step(*arguments)

    step, loop.take_step = loop.take_step, take
    try:
        yield
    except Enough:
        pass
    finally:
        loop.take_step = step


VERBS: Mapping[str, Callable[[Path], None]] = {
    "open": open_and_summarise,
    "sample": sample,
    "use": use,
    "score": score,
    "verify": check,
    "measure": measure,
    "resume": go_on,
    "export": go_out,
    "report": report,
}


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises Hangs in a block that takes more seconds of the processor, which do not depend on what else runs."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(verb: str, run: Path) -> str:
    """ "works", or the message of the UserError. Raises whatever else the verb raises, and Hangs."""
    with events.listening(events.ignore), limited(SECONDS):
        try:
            VERBS[verb](run)
        except (UserError, Diverged) as e:
            return str(e)
    return "works"
