"""`afresh launch`: a command that trains, as a job of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.show import emit, note, say

if TYPE_CHECKING:
    from afresh.verbs.launch.job import JobFile, LaunchJob, TrainingCommand

MACHINES = "Machines"
ENGINES = ("slurm", "k8s", "sky")


def launch(
    engine: Annotated[str, typer.Argument(help="slurm, k8s (Kubernetes) or sky (SkyPilot).", metavar="ENGINE")],
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="After --: train, tune, distill or align with all of its options, --out among them.",
            metavar="-- COMMAND...",
            show_default=False,
        ),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Hand the job to sbatch, kubectl or sky.")] = False,
    file: Annotated[
        Path | None,
        o.option("Where the job file is written; shown if not given, or NAME in this folder with --submit."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another file there.")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.", rich_help_panel=MACHINES)] = 1,
    gpus: Annotated[
        str,
        o.option("GPUs of each machine: a number, or a kind and a number, as h100:8.", MACHINES, metavar="[KIND:]N"),
    ] = "1",
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on each machine; one for each GPU by default.", rich_help_panel=MACHINES),
    ] = None,
    cpus: Annotated[int | None, o.setting("Processors of each machine; 8 for each GPU by default.", min=1)] = None,
    memory: Annotated[int | None, o.setting("GiB of each machine.", min=1)] = None,
    mount: Annotated[
        list[str] | None,
        o.option(
            "k8s, sky: what appears at a place of each machine: a claim of a volume; a volume or a bucket.",
            MACHINES,
            metavar="PLACE=SOURCE",
        ),
    ] = None,
    image: Annotated[str | None, o.option("k8s, sky: the image of a container that has afresh.", MACHINES)] = None,
    install: Annotated[str | None, o.setting("sky: what pip installs instead, a wheel or git+https://...")] = None,
    name: Annotated[str | None, o.option("Name of the job; that of the run by default.")] = None,
    time: Annotated[
        float | None, o.minutes_setting("slurm: of the job; those of the command and a margin by default:", "time")
    ] = None,
    restarts: Annotated[int, o.setting("How often a job that failed goes on by itself.", min=0)] = 3,
    env: Annotated[
        list[str] | None,
        o.option("A variable that the job gets, as WANDB_API_KEY: its value is never in the file.", metavar="NAME"),
    ] = None,
    kind: Annotated[str | None, o.setting("k8s: jobset, or trainjob of Kubeflow; jobset by default.")] = None,
    as_json: Annotated[bool, o.json_of("{engine, file, text, notes, submitted}")] = False,
) -> None:
    """Launch a training on a cluster: write a job file of Slurm, Kubernetes or SkyPilot; with --submit, hand it over.

    For example: afresh launch slurm --nodes 2 --gpus 8 -- train /data/photos --minutes 600 --out /shared/runs/photos.
    The job starts torchrun on every machine, saves when its time is over, and goes on with its run when it starts
    again. What the command names must be where the job runs: what must be shared is listed, and what cannot work is
    refused.
    """
    from afresh.core import UserError
    from afresh.verbs.launch.job import CPUS, LaunchJob, default_name, gpus_of, mounts_of
    from afresh.verbs.launch.submit import submit_job, write_job

    if engine not in ENGINES:
        raise UserError(f"{engine!r} is not an engine. Choose from: {', '.join(ENGINES)}.", "unknown_engine")
    training = training_command(command or [])
    gpu_kind, count = gpus_of(gpus)
    job = LaunchJob(
        training,
        name or default_name(training.out),
        nodes=nodes,
        gpus=count,
        gpu_kind=gpu_kind,
        processes=processes or max(1, count),
        cpus=cpus or CPUS * max(1, count),
        memory=memory,
        restarts=restarts,
        env=tuple(env or ()),
        mounts=mounts_of(mount or ()),
    )
    made = job_file(engine, job, time, {"image": image, "kind": kind, "install": install})
    if submit or file is not None:
        file = file or Path(f"{job.name}{made.suffix}")
        write_job(made, file, force)
        say(f"job file: {file}")
    note(*made.notes)
    submitted = submit_job(made, file) if submit and file is not None else None
    if as_json:
        place = None if file is None else str(file)
        emit({"engine": engine, "file": place, "text": made.text, "notes": list(made.notes), "submitted": submitted})
    elif file is None:
        typer.echo(made.text, nl=False)


def training_command(words: list[str]) -> TrainingCommand:
    """The command that trains. Raises UserError if it cannot be launched, and a usage error for wrong options."""
    from afresh.core import UserError
    from afresh.faces.cli.training_command import paths_of, values_of
    from afresh.verbs.launch.job import TrainingCommand
    from afresh.verbs.launch.places import check_command

    words = words[1:] if words[:1] == ["afresh"] else words
    values = values_of(words)
    if values.get("adapter"):
        raise UserError("The adapter of a person is learnt in the folder of its base, on one machine: run it there.")
    if values["force"]:
        raise UserError("A job that starts again would replace what it has learnt. Leave --force out of the command.")
    if values.get("path", "") is None and values["resume"] is None:
        raise UserError("The command does not say what to learn from: train PATH, or train --resume RUN.", "no_path")
    out = values["out"] or values.get("resume")
    if out is None:
        raise UserError("Give the command --out, the folder of its run, in which the job goes on.", "no_out")
    paths = tuple(p for p in paths_of(values) if p != out)
    command = TrainingCommand(tuple(words), out, paths, Path.cwd(), values["minutes"])
    check_command(command)
    return command


def job_file(engine: str, job: LaunchJob, time: float | None, options: dict[str, str | None]) -> JobFile:
    """The file of a job. Raises UserError for options that its engine does not have."""
    from afresh.core import UserError
    from afresh.verbs.launch.kubernetes import kubernetes_job
    from afresh.verbs.launch.sky import sky_job
    from afresh.verbs.launch.slurm import slurm_job

    known = {"slurm": ("time",), "k8s": ("image", "kind"), "sky": ("image", "install")}[engine]
    given = {"time": time, **options}
    extra = [f"`{name}`" for name, value in given.items() if value is not None and name not in known]
    if extra:
        raise UserError(f"{', '.join(extra)}: {engine} has no such option. It has: `{'`, `'.join(known)}`.")
    if engine == "slurm":
        return slurm_job(job, time)
    if engine == "k8s":
        return kubernetes_job(job, options["image"], options["kind"] or "jobset")
    return sky_job(job, options["image"], options["install"])
