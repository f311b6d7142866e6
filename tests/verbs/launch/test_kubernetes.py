"""Jobs of Kubernetes, checked by the published schemas of JobSet and of Kubeflow Trainer (schemas/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from afresh.core import UserError
from afresh.verbs.launch.job import LaunchJob
from afresh.verbs.launch.kubernetes import KINDS, kubernetes_job
from tests.needs import package
from tests.verbs.launch.jobs import ODD, job

SCHEMAS = Path(__file__).parent / "schemas"
MOUNTS = {"/data": "photos", "/runs": "my-runs"}
PLACES = {"data": "/data/photos", "out": "/runs/a", "mounts": MOUNTS}


def read(made: LaunchJob, kind: str) -> dict[str, Any]:
    """A job as Kubernetes reads it. Fails if the schema does not know it."""
    document = package("yaml", "pyyaml").safe_load(kubernetes_job(made, "registry/afresh:1", kind).text)
    schema = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    return dict(document)


def parts(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod, and what is said of the container that trains, wherever the kind of job has it."""
    spec = document["spec"]
    if document["kind"] == "JobSet":
        pod = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        return pod, pod["containers"][0]
    jobs = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = jobs[0]["template"]["spec"]["template"]["spec"]
    return pod, {**pod["containers"][0], **spec["trainer"], "resources": spec["trainer"]["resourcesPerNode"]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_of_kubernetes(kind: str, tmp_path: Path) -> None:
    made = job(tmp_path, **PLACES, nodes=2, gpus=8, processes=8, cpus=64, memory=512, env=("MY_KEY",))
    pod, container = parts(read(made, kind))
    assert pod["terminationGracePeriodSeconds"] == 120 and container["image"] == "registry/afresh:1"
    assert container["resources"]["limits"] == {"cpu": 64, "memory": "512Gi", "nvidia.com/gpu": 8}
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
    }
    places = {m["mountPath"]: claims[m["name"]] for m in container["volumeMounts"] if m["name"] in claims}
    assert places == MOUNTS
    variables = {v["name"]: v.get("value", v.get("valueFrom")) for v in container["env"]}
    assert variables["OMP_NUM_THREADS"] == "8" and variables["AFRESH_KEY_FOLDER"] == "/runs/.afresh"
    assert variables["MY_KEY"] == {"secretKeyRef": {"name": "a", "key": "MY_KEY"}}
    words = container["command"]
    assert words[:3] == ["torchrun", "--nnodes=2", "--nproc-per-node=8"]
    assert words[-8:] == [
        "-m",
        "afresh.faces.cli.go_on",
        "train",
        "/data/photos",
        "--minutes",
        "60",
        "--out",
        "/runs/a",
    ]
    assert "--rdzv-backend=c10d" in words and "--max-restarts=3" in words


def test_the_machines_of_a_jobset_meet_at_the_first_pod(tmp_path: Path) -> None:
    spec = read(job(tmp_path, **PLACES, nodes=3, name="photos"), "jobset")["spec"]
    work = spec["replicatedJobs"][0]["template"]["spec"]
    assert (work["parallelism"], work["completions"], work["completionMode"]) == (3, 3, "Indexed")
    assert work["template"]["spec"]["restartPolicy"] == "Never" and work["backoffLimit"] == 0
    assert spec["failurePolicy"] == {"maxRestarts": 3}
    command = work["template"]["spec"]["containers"][0]["command"]
    assert "--rdzv-endpoint=photos-workers-0-0.photos:29400" in command


def test_those_of_a_trainjob_meet_where_kubeflow_says(tmp_path: Path) -> None:
    spec = read(job(tmp_path, **PLACES, nodes=3, processes=1), "trainjob")["spec"]
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (3, 1)
    assert "--rdzv-endpoint=$(PET_MASTER_ADDR):$(PET_MASTER_PORT)" in spec["trainer"]["command"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_a_command_arrive_as_they_were_typed(kind: str, tmp_path: Path) -> None:
    """Kubernetes itself replaces $(NAME), and $$ by $."""
    _, container = parts(read(job(tmp_path, **PLACES, words=ODD, gpus=0), kind))
    assert tuple(word.replace("$$", "$") for word in container["command"][-len(ODD) :]) == ODD
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data would not be where the job runs.*Mounts: /data, /runs"):
        kubernetes_job(job(tmp_path, **{**PLACES, "data": "data"}))
    with pytest.raises(UserError, match="/results/a would not be"):
        kubernetes_job(job(tmp_path, **{**PLACES, "out": "/results/a"}))
    with pytest.raises(UserError, match="Give the number alone"):
        kubernetes_job(job(tmp_path, **PLACES, gpu_kind="h100"))
    with pytest.raises(UserError, match="names no claim"):
        kubernetes_job(job(tmp_path, **{**PLACES, "mounts": {"/data": "s3://b", "/runs": "r"}}))
    with pytest.raises(UserError, match="jobset, trainjob"):
        kubernetes_job(job(tmp_path, **PLACES), kind="pytorchjob")


def test_what_the_file_cannot_hold_is_said(tmp_path: Path) -> None:
    said = " ".join(kubernetes_job(job(tmp_path, **PLACES, nodes=2, env=("MY_KEY",))).notes)
    assert "the claim photos must exist" in said and "ReadWriteMany" in said
    assert "podman build" in said and "the Secret a must have the key MY_KEY" in said
