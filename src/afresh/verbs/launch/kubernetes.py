"""A job of Kubernetes: a JobSet (jobset.x-k8s.io/v1alpha2), or a TrainJob of Kubeflow (trainer.kubeflow.org/v1alpha1).

Kubernetes replaces $(NAME) in the words of a command, and $$ by $; words of the user are written so that they stay.
"""

from __future__ import annotations

import re

from afresh import __version__
from afresh.core import UserError
from afresh.verbs.launch.job import GRACE, PORT, JobFile, LaunchJob
from afresh.verbs.launch.places import check_mounted, key_folder, local_paths
from afresh.verbs.launch.render import meeting, program, render

IMAGE = f"afresh:{__version__}"
GROUP = 1000  # of the user of the image that Containerfile makes, to whom what is mounted must belong
CLAIM = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
KINDS = ("jobset", "trainjob")


def kubernetes_job(job: LaunchJob, image: str | None = None, kind: str = "jobset") -> JobFile:
    """The manifest of a job. Its mounts are claims of volumes (PersistentVolumeClaim).

    Raises UserError if a path lies on no mount, for a kind of GPU, which a cluster chooses by its own labels, and for
    another kind of job than `KINDS`.
    """
    if kind not in KINDS:
        raise UserError(f"`kind={kind}` is not a kind of job. Choose from: {', '.join(KINDS)}.")
    if job.gpu_kind is not None:
        raise UserError(
            f"`gpus={job.gpu_kind}:{job.gpus}`: the kind of GPU is chosen by labels of the cluster's nodes, which are "
            "not known here. Give the number alone, and add a nodeSelector to the file."
        )
    for claim in job.mounts.values():
        if CLAIM.fullmatch(claim) is None:
            raise UserError(f"`mount={claim}` names no claim of a volume: give the name of a PersistentVolumeClaim.")
    check_mounted(local_paths(job.command), job)
    endpoint = f"{job.name}-workers-0-0.{job.name}:{PORT}"
    if kind == "trainjob":
        endpoint = "$(PET_MASTER_ADDR):$(PET_MASTER_PORT)"  # which Kubeflow sets
    options = ["torchrun", *meeting(job), f"--rdzv-endpoint={endpoint}"]
    text = render(
        f"{kind}.yaml",
        job,
        image=image or IMAGE,
        grace=GRACE,
        group=GROUP,
        words=[*options, *(word.replace("$", "$$") for word in program(job))],
        variables={**job.variables, "AFRESH_KEY_FOLDER": key_folder(job)},
    )
    return JobFile(text, f".{kind}.yaml", ("kubectl", "apply", "-f", "-"), as_input=True, notes=notes(job, image))


def notes(job: LaunchJob, image: str | None) -> tuple[str, ...]:
    found = [f"the claim {claim} must exist; the job sees it at {place}" for place, claim in job.mounts.items()]
    if job.nodes > 1:
        found.append("what is mounted must be open to all nodes at once (ReadWriteMany)")
    if image is None:
        found.append(
            f"the image {IMAGE} is made by `podman build -t {IMAGE} .` in the sources of afresh, and must be where the "
            "cluster finds it; for GPUs without the line of torch for processors"
        )
    found += [f"the Secret {job.name} must have the key {name}" for name in job.env]
    return tuple(found)
