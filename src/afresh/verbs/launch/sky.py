"""A task of SkyPilot, which rents machines in a cloud or takes them from a cluster (https://docs.skypilot.co)."""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError
from afresh.verbs.launch.job import PORT, JobFile, LaunchJob
from afresh.verbs.launch.places import check_mounted, is_address, key_folder, local_paths, mount_of
from afresh.verbs.launch.render import meeting, program, render


def sky_job(job: LaunchJob, image: str | None = None, install: str | None = None) -> JobFile:
    """The task of a job. A mount is a bucket, if it is an address as s3://NAME, and otherwise a volume of SkyPilot.

    `install`: what pip installs on every machine, unless afresh is in the `image`. Raises UserError unless one of them
    is given; if a path lies neither in this folder, which is copied to every machine, nor on a mount; if the run's
    folder is not on a mount, or several nodes would write to a bucket; and for GPUs of no kind.
    """
    if (image is None) == (install is None):
        raise UserError(
            "Say how afresh comes to the machines. Give either `image`, of a container that has it, or `install`, "
            "which pip installs: a wheel in this folder, or an address as git+https://...",
            "no_afresh",
        )
    if job.gpus and job.gpu_kind is None:
        raise UserError(f"SkyPilot asks for GPUs by their kind: give `gpus` as H100:{job.gpus}.", "no_gpu_kind")
    inputs = [p for p in local_paths(job.command) if p != job.command.out]
    copied = [p for p in inputs if not p.is_absolute()]
    if install is not None and not Path(install).is_absolute() and Path(install).exists():
        copied.append(Path(install))
    check_mounted([p for p in inputs if p.is_absolute()], job)
    check_mounted([job.command.out], job)
    check_written(job)
    text = render(
        "sky.yaml",
        job,
        workdir=job.command.folder if copied else None,
        image=image,
        install=install,
        buckets={place: source for place, source in job.mounts.items() if is_address(source)},
        volumes={place: source for place, source in job.mounts.items() if not is_address(source)},
        variables={**job.variables, "AFRESH_KEY_FOLDER": key_folder(job)},
        meeting=meeting(job),
        program=program(job),
        port=PORT,
    )
    secrets = [word for name in job.env for word in ("--secret", name)]
    program_words = ("sky", "launch", "--yes", "--detach-run", "--down", "--cluster", job.name, *secrets)
    notes = [f"{job.command.folder} is copied to every machine, because of {path}" for path in copied[:1]]
    notes += [f"{source} must exist; the job sees it at {place}" for place, source in job.mounts.items()]
    return JobFile(text, ".sky.yaml", program_words, notes=tuple(notes))


def check_written(job: LaunchJob) -> None:
    """Raises UserError if several nodes would write a run to a bucket: each has a copy of its own, which is uploaded
    later, so that no node has a whole checkpoint."""
    source = job.mounts.get(mount_of(job.command.out, job) or "", "")
    if job.nodes > 1 and is_address(source):
        raise UserError(
            f"{job.command.out} would be in the bucket {source}, to which several nodes cannot write one checkpoint. "
            "Mount a volume that all nodes share, as `mount=/runs=VOLUME`, or take one node.",
            "bucket_of_many_nodes",
        )
