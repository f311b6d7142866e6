"""`afresh train`: a path to a trained, measured run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.show import emit, quoted, say

if TYPE_CHECKING:
    from afresh.engine.evaluation.study import Measurement
    from afresh.engine.sampling.samples import Samples
    from afresh.verbs.training_job import Job

SHOWN = {"text": 2, "image": 8, "sound": 4}  # samples at the end of training, by how a person perceives them


def train(
    path: Annotated[
        Path | None,
        typer.Argument(help="Your data: a file or a folder.", metavar="PATH", show_default=False, callback=o.existing),
    ] = None,
    modality: o.Modality = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Begin with a model instead of random weights, as tune does; auto: small public weights on this "
            "machine, for little text.",
            metavar="BASE",
            callback=o.base_path,
            autocompletion=completion.runs,
        ),
    ] = None,
    family: Annotated[
        str | None,
        o.option(
            "The kind of model: transformer, masked, vae, gan, flow (also called diffusion), autoencoder.",
            complete=completion.families,
        ),
    ] = None,
    codec: Annotated[
        str | None,
        o.option(
            "The autoencoder whose latents are learnt: a run, a folder, a name on the hub, or none. By default, images "
            "of more than 96 pixels have a public one.",
            complete=completion.runs,
        ),
    ] = None,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    tokens: Annotated[int | None, o.option("Tokens of training.", o.BUDGET)] = None,
    seed: Annotated[int | None, o.option("Seed of all random numbers; 0 by default.")] = None,
    out: Annotated[Path | None, o.option("Folder of the run; runs/NAME by default.")] = None,
    validation: o.Validation = None,
    force: o.Force = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue this run; no PATH is given then.", callback=o.existing_run, autocompletion=completion.runs
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="With --resume: run and read what a run of somebody else names."),
    ] = False,
    ignore_stop: Annotated[
        bool,
        typer.Option("--ignore-stop", help="With --resume: train to the planned steps though training was stopped."),
    ] = False,
    device: o.Device = None,
    processes: o.Processes = 1,
    on: o.On = None,
    data: o.DataOptions = None,
    setting: o.TrainSettings = None,
    log: o.Log = None,
    measure: o.MeasureAtEnd = True,
    verbose: o.Verbose = False,
    as_json: o.ResultAsJson = False,
) -> None:
    """Train a generative model on your own data, for 5 minutes if no budget is given.

    What the data is, which model, what size and how many steps are decided, shown and recorded in the run's folder.
    Ctrl-C saves; afresh train --resume RUN continues as if training had never stopped.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.engine.training.options import by_part
    from afresh.verbs.train import TrainSpec, start

    given: dict[str, Any] = {
        "--modality": modality,
        "--base": base,
        "--family": family,
        "--codec": codec,
        "--minutes": minutes,
        "--steps": steps,
        "--tokens": tokens,
    }
    given |= {"--seed": seed, "--out": out, "--validation": validation, "--force": force or None, "--device": device}
    given |= {"--data": data or None, "--set": setting or None, "PATH": path}
    if resume is not None:
        extra = [k for k, v in given.items() if v is not None]
        if extra:
            raise UserError(
                f"--resume goes on with a run exactly as it was planned. Leave out: {', '.join(extra)}; "
                "or train a new run without --resume."
            )
        finish(resumed(resume, trust, ignore_stop, processes, on, as_json), measure, as_json, log)
        return
    for name, value in (("--trust", trust), ("--ignore-stop", ignore_stop)):
        if value:
            raise UserError(f"{name} is for a run that exists: give --resume RUN with it.")
    if path is None:
        raise UserError("Say what to learn from: afresh train PATH. Or go on with a run: afresh train --resume RUN.")
    set_family, set_train = by_part(pairs(setting or [], "--set"))
    spec = TrainSpec(
        path=path,
        modality=modality,
        base=base,
        family=family,
        codec=codec or "auto",
        minutes=minutes,
        steps=steps,
        tokens=tokens,
        seed=seed or 0,
        out=out,
        validation=validation,
        force=force,
        device=device,
        processes=processes,
        on=on,
        data=pairs(data or [], "--data"),
        set_family=set_family,
        set_train=set_train,
        clock=o.clock(measure),
    )
    finish(start(spec), measure, as_json, log)


def resumed(path: Path, trust: bool, ignore_stop: bool, processes: int, on: str | None, as_json: bool) -> Job:
    """The run, once it is known that it may run and read what it names: a person at a terminal is asked."""
    from afresh.faces.cli.consent import with_consent
    from afresh.runs.about import AboutRun
    from afresh.verbs.resume import resume
    from afresh.verbs.torchrun import together

    begin = together(resume)
    job = with_consent(lambda trusted: begin(path, trusted, ignore_stop, processes=processes, on=on), trust, as_json)
    about = AboutRun(job.run)
    say(f"going on with {path} at step {about.steps:,} of {about.planned:,}")
    return job


def finish(job: Job, measure: bool, as_json: bool, log: Sequence[str] | None) -> None:
    """Learn, measure, report, and say what was made."""
    from afresh.engine.training import ranks
    from afresh.engine.training.loop import Interrupted
    from afresh.verbs.report import final_record
    from afresh.verbs.training_job import learn

    again = f"go on with: afresh train --resume {quoted(job.run.path)}"
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


def judged(job: Job, measure: bool) -> tuple[Measurement | None, Samples | None]:
    """The measurement, and the samples of the report, which is written to the run's folder; None for what fails."""
    from afresh.core.errors import left_out
    from afresh.engine.training.loop import Interrupted
    from afresh.verbs.measuring import measure_run
    from afresh.verbs.report import report_samples, write_run_report

    path = job.run.path
    try:
        with left_out(f"Training is done and saved, but not reported. To report it: afresh measure {quoted(path)}."):
            measured = None
            if measure:
                measured = measure_run(job.run, prepared=job.prepared, seconds=job.measuring_seconds())
            shown = report_samples(job.run, job.seconds_left())
            say(f"report: {write_run_report(job.run, measured, shown)}")
            return measured, shown.samples
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped while measuring; training is done and saved. Measure with: afresh measure {quoted(path)}"
        ) from None
    return None, None


def show(job: Job, seconds: float, measured: Measurement | None, samples: Samples | None = None) -> None:
    """The result for a person, a few of the samples first."""
    from afresh.core.plural import counted
    from afresh.engine.sampling.request import converses
    from afresh.engine.training.progress import clock
    from afresh.faces.cli.commands import show_line
    from afresh.faces.cli.show import answer
    from afresh.faces.cli.show_samples import show_samples
    from afresh.runs.about import AboutRun
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
            say(f"listen: {job.run.path / 'report.html'}")
    if measured is not None:
        for line in verdict_lines(run_verdict(job.run, measured)):
            show_line(line)
    answer(f"{job.run.path}: {about.model}, {counted(about.steps, 'step')}, {clock(spent)} in all")
    if (steered := alignment_of(about)) is not None:
        answer("; ".join(f"{name} {value}" for name, value in steered.facts))
    answer(f"next: {use_command(job.run)}")
