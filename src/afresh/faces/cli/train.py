"""`afresh train`, `tune`, `distill` and `align`: paths to a trained, measured run."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.verb import Absent, Parameter, fields_of, help_of
from afresh.faces.cli import options as o
from afresh.faces.cli.commands import flag_of, flags_of, keyword, named, one_word, parameter_of, show_line, value_of
from afresh.faces.cli.completion import runs
from afresh.faces.cli.paths import existing_run
from afresh.faces.cli.show import answer, emit, say
from afresh.faces.cli.wording import as_typed
from afresh.verbs.training_spec import AlignSpec, DistillSpec, RunSpec, TrainSpec, TuneSpec

if TYPE_CHECKING:
    from afresh.engine.evaluation.study import Measurement
    from afresh.engine.sampling.samples import Samples
    from afresh.verbs.training_job import Job

SHOWN = {"text": 2, "image": 8, "sound": 4}  # samples at the end of training, by how a person perceives them


STARTED = time.monotonic()  # when the command line was imported, which is soon after the command began
KEPT = ("processes", "on", "log")  # what a run that goes on is asked for again
AT_THE_END = (
    keyword(
        "measure", Annotated[bool, o.option("Measure the model at the end.", None, "--measure/--no-measure")], True
    ),
    keyword("verbose", Annotated[bool, o.common("--verbose")]),
    keyword("as_json", Annotated[bool, o.json_of("{run, steps, heldout_loss, seconds, ...}")]),
)


def training(spec: type[RunSpec], *more: inspect.Parameter) -> Callable[..., None]:
    """The command of a training; with `more` options, it can go on with a run instead of reading data."""
    offered = [p for p in fields_of(spec) if p.option.shell is not Absent]
    offered = [replace(p, default=None) if more and p.name == "path" else p for p in offered]

    def command(context: typer.Context, **values: Any) -> None:
        resuming = bool(more) and resumes(context, values, offered)
        read = {p.name: value_of(None, p, values[p.name]) for p in offered if not one_word(p)}
        typed = {p.name: values[p.name] for p in offered} | read
        job = resumed(values) if resuming else begun(spec(**typed), values["measure"])
        finish(job, values["measure"], values["as_json"], typed["log"])

    flags = flags_of(offered)
    parameters = [keyword("context", typer.Context, inspect.Parameter.empty)]
    parameters += [*(parameter_of(p, flags, early=True) for p in offered), *more, *AT_THE_END]
    return named(command, spec.verb, as_typed(help_of(spec), flags), parameters)


def resumes(context: typer.Context, values: Mapping[str, Any], offered: Sequence[Parameter]) -> bool:
    """Whether a run is gone on with. Raises UserError for options that do not fit that, or fit nothing else."""
    from afresh.core import UserError

    sources = {p.name: context.get_parameter_source(p.name) for p in offered if p.name not in KEPT}
    given = [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]
    if values["resume"] is not None:
        if given:
            names = ", ".join("PATH" if p.name == "path" else flag_of(p) for p in offered if p.name in given)
            raise UserError(
                f"--resume goes on with a run exactly as it was planned. Leave out: {names}; or train a new run "
                "without --resume."
            )
        return True
    for name, flag in (("trust", "--trust"), ("ignore_stop", "--set ignore_stop")):
        if values[name]:
            raise UserError(f"{flag} is for a run that exists: give --resume RUN with it.")
    if values["path"] is None:
        raise UserError("Say what to learn from: afresh train PATH. Or go on with a run: afresh train --resume RUN.")
    return False


def begun(spec: RunSpec, measure: bool) -> Job:
    """The run that is made, ready to learn."""
    from afresh.core.errors import Interrupted
    from afresh.engine.training.training_clock import Clock

    try:
        return spec.start(Clock(STARTED, measure))
    except KeyboardInterrupt:
        raise Interrupted(
            "Stopped while preparing, before there was a run to keep. Run the same command again."
        ) from None


def resumed(values: Mapping[str, Any]) -> Job:
    """The run, once it is known that it may run and read what it names: a person at a terminal is asked."""
    from afresh.faces.cli.consent import with_consent
    from afresh.runs.about import AboutRun
    from afresh.verbs.resume import resume
    from afresh.verbs.torchrun import together

    path = values["resume"]
    also = {name: values[name] for name in ("ignore_stop", "processes", "on")}
    begin = together(resume)
    job = with_consent(lambda trusted: begin(path, trusted, **also), values["trust"], values["as_json"])
    about = AboutRun(job.run)
    say(f"going on with {path} at step {about.steps:,} of {about.planned:,}")
    return job


def finish(job: Job, measure: bool, as_json: bool, log: Sequence[str] | None) -> None:
    """Learn, measure, report, and say what was made."""
    from afresh.core.errors import Interrupted
    from afresh.engine.training import ranks
    from afresh.verbs.report import final_record
    from afresh.verbs.training_job import learn

    again = f"go on with: afresh train --resume {called(job.run.path)}"
    try:
        seconds = learn(job, log or ())
    except Interrupted as e:
        raise Interrupted(f"Interrupted: {e}; {again}") from None
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped at once; what was saved last is kept; {again}") from None
    if not ranks.leads():
        return
    if job.run.record.lora is not None:
        say(f"adapter: {job.run.path / 'adapter'}")
    measured, samples = judged(job, measure)
    if as_json:
        emit(final_record(job.run, seconds, measured))
    else:
        show(job, seconds, measured, samples)


def called(run: Path) -> str:
    """A run as it is typed in a shell: by its address if it lives in a store."""
    from afresh.core.safe_text import shell_word
    from afresh.runs.run_store import place

    return shell_word(place(run))


def judged(job: Job, measure: bool) -> tuple[Measurement | None, Samples | None]:
    """The measurement, and the samples of the report, which is written to the run's folder; None for what fails."""
    from afresh.core.errors import Interrupted, left_out
    from afresh.runs.run_store import place
    from afresh.verbs.measuring import measure_run
    from afresh.verbs.report import report_samples, write_run_report

    path = job.run.path
    try:
        with left_out(f"Training is done and saved, but not reported. To report it: afresh measure {called(path)}."):
            measured = None
            if measure:
                measured = measure_run(job.run, prepared=job.prepared, seconds=job.measuring_seconds())
            shown = report_samples(job.run, job.seconds_left())
            say(f"report: {place(path)}/{write_run_report(job.run, measured, shown).name}")
            return measured, shown.samples
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped while measuring; training is done and saved. Measure with: afresh measure {called(path)}"
        ) from None
    return None, None


def show(job: Job, seconds: float, measured: Measurement | None, samples: Samples | None = None) -> None:
    """The result for a person, a few of the samples first."""
    from afresh.core.plural import counted
    from afresh.engine.sampling.request import converses
    from afresh.engine.training.progress import clock
    from afresh.engine.training.training_clock import compared
    from afresh.faces.cli.show_samples import show_samples
    from afresh.runs.about import AboutRun
    from afresh.runs.run_store import place
    from afresh.verbs.measuring import verdict_lines
    from afresh.verbs.report import alignment_of, run_verdict
    from afresh.verbs.use_command import use_command

    about = AboutRun(job.run)
    spent = seconds if job.clock is None else time.monotonic() - job.clock.begun  # of the whole command
    if samples is not None:
        show_samples(
            samples,
            between="\n" if converses(job.run.encoder, job.run.space) else "",
            most=SHOWN[samples.encoder.kind.view],
        )
        if samples.encoder.kind.view == "sound":
            say(f"listen: {place(job.run.path)}/report.html")
    if measured is not None:
        for line in verdict_lines(run_verdict(job.run, measured)):
            show_line(line)
    minutes = job.run.record.minutes
    took = clock(spent) if job.clock is None or minutes is None else compared(spent, minutes)
    answer(f"{called(job.run.path)}: {about.model}, {counted(about.steps, 'step')}, {took} in all")
    if (steered := alignment_of(about)) is not None:
        answer("; ".join(f"{name} {value}" for name, value in steered.facts))
    answer(f"next: {use_command(job.run)}")


train = training(
    TrainSpec,
    keyword(
        "resume",
        Annotated[
            Path | None,
            typer.Option(help="Continue this run; no PATH is given then.", callback=existing_run, autocompletion=runs),
        ],
        None,
    ),
    keyword("trust", o.Trust),
    keyword("ignore_stop", Annotated[bool, o.setting("With --resume: train to the planned steps though stopped.")]),
)
tune, distill, align = training(TuneSpec), training(DistillSpec), training(AlignSpec)
