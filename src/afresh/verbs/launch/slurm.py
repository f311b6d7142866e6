"""A job of Slurm: an sbatch script that starts torchrun on every node, and starts again when its time was over.

Options and signals are those of sbatch(1), srun(1) and scancel(1) of Slurm 22.05 and later. Since then srun does not
take --cpus-per-task from the job, so it is given again.
"""

from __future__ import annotations

import math
import sys

from afresh.core import UserError
from afresh.runs.output_dir import check_output_dir, is_run
from afresh.verbs.launch.job import GRACE, JobFile, LaunchJob
from afresh.verbs.launch.places import shared_paths
from afresh.verbs.launch.render import meeting, program, render

MARGIN, SHARE = 15, 0.1  # minutes, and a share of the budget, by which a job may take longer than its command
LEAST = 10  # minutes: a job of less would be told to stop soon after its start


def slurm_job(job: LaunchJob, minutes: float | None = None) -> JobFile:
    """The script of a job that may take these minutes, or, if None, those of its command and a margin.

    Raises UserError if neither the job nor its command has a number of minutes, if the run's folder holds other things
    than a run, and for mounts.
    """
    out = job.command.folder / job.command.out
    if not is_run(out):
        check_output_dir(out, force=False)
    if job.mounts:
        raise UserError("`mount` is for k8s and sky: the nodes of Slurm see the same file system as this machine.")
    limit = time_limit(job, minutes)
    shared = shared_paths(job.command)
    text = render(
        "slurm.sh",
        job,
        shared=shared,
        minutes=limit,
        grace=GRACE,
        late=limit * 60 - 2 * GRACE,  # seconds: Slurm may send the signal a minute early
        python=sys.executable,
        meeting=meeting(job),
        program=program(job),
    )
    notes = [f"all nodes must see at the same path: {path}" for path in (sys.executable, *shared)]
    notes += [f"{path} is not on this machine" for path in shared[:-1] if not path.exists()]
    if is_run(out):
        notes.append(f"{job.command.out} is a run already: the job goes on with it")
    if minutes is None:
        notes.append(f"the job may take {limit} minutes: those of the command, a tenth more, and {MARGIN}")
    return JobFile(text, ".sbatch", ("sbatch",), notes=tuple(notes))


def time_limit(job: LaunchJob, minutes: float | None) -> int:
    """Whole minutes that the job may take. Raises UserError if they are unknown or too few."""
    if minutes is not None:
        if minutes < LEAST:
            raise UserError(f"A job has to take at least {LEAST} minutes: it is stopped before its end, to save.")
        return math.ceil(minutes)
    if job.command.minutes is None:
        raise UserError(
            "How long the job may take is not known, since the command has no minutes. Give `time`: when it is over, "
            "the run is saved, and the job goes on in another.",
            "no_time",
        )
    return math.ceil(job.command.minutes * (1 + SHARE)) + MARGIN
