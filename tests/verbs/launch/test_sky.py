"""Tasks of SkyPilot: as YAML, and as SkyPilot reads them where it is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.verbs.launch.job import LaunchJob
from afresh.verbs.launch.sky import sky_job
from tests.needs import package
from tests.verbs.launch.jobs import ODD, job, put_programs

MOUNTS = {"/pictures": "s3://my-pictures", "/runs": "my-volume"}
GPUS = {"gpus": 8, "gpu_kind": "H100", "processes": 8, "cpus": 64}


def whole(folder: Path, **fields: Any) -> LaunchJob:
    """A job that uses all that a task may have."""
    given = {"data": "/pictures/a", "out": "/runs/a", "mounts": MOUNTS, "nodes": 2, "memory": 512, "env": ("MY_KEY",)}
    return job(folder, **{**given, **GPUS, **fields})


def read(made: LaunchJob, **options: str) -> dict[str, Any]:
    return dict(package("yaml", "pyyaml").safe_load(sky_job(made, **options or {"image": "registry/afresh:1"}).text))


def test_what_is_asked_of_skypilot(tmp_path: Path) -> None:
    task = read(whole(tmp_path))
    run = task.pop("run")
    assert task == {
        "name": "a",
        "num_nodes": 2,
        "resources": {
            "accelerators": "H100:8",
            "cpus": "64+",
            "memory": "512+",
            "image_id": "docker:registry/afresh:1",
        },
        "file_mounts": {"/pictures": {"source": "s3://my-pictures", "mode": "MOUNT_CACHED"}},
        "volumes": {"/runs": "my-volume"},
        "envs": {
            "OMP_NUM_THREADS": "8",
            "PET_SHUTDOWN_TIMEOUT": "90",
            "PYTHONUNBUFFERED": "1",
            "AFRESH_KEY_FOLDER": "/runs/.afresh",
        },
        "secrets": {"MY_KEY": None},
        "setup": "python -c 'import afresh'\n",
    }
    assert "--nnodes=2" in run
    assert sky_job(whole(tmp_path), "x").program == (
        *("sky", "launch", "--yes", "--detach-run", "--down", "--cluster", "a", "--secret", "MY_KEY"),
    )


def test_this_folder_is_copied_if_the_command_needs_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    task = read(whole(tmp_path, data="data"), install="git+https://example.org/afresh")
    assert task["workdir"] == str(tmp_path) and task["setup"] == "pip install git+https://example.org/afresh\n"
    assert "workdir" not in read(whole(tmp_path))


@pytest.mark.parametrize("rank", [0, 1])
def test_the_words_of_a_command_arrive_as_they_were_typed(rank: int, tmp_path: Path) -> None:
    run = read(whole(tmp_path, words=ODD))["run"]
    path = put_programs(tmp_path / "bin", {"torchrun": 'printf "%s\\0" "$@"'})
    given = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": str(rank)}
    variables = {**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}", **given}
    done = subprocess.run(["bash", "-c", run], env=variables, stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().split("\0")[:-1] == [
        *("--nnodes=2", "--nproc-per-node=8", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=a"),
        *("--rdzv-endpoint=10.0.0.1:29400", f"--rdzv-conf=is_host={'false' if rank else 'true'}"),
        *("-m", "afresh.faces.cli.go_on", "train", "/pictures/a", "--minutes", "60", "--out", "/runs/a", *ODD),
    ]


def test_skypilot_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where SkyPilot keeps a data base
    sky = package("sky", "skypilot (half a gigabyte, for this test alone)")
    file = tmp_path / "task.yaml"
    file.write_text(sky_job(whole(tmp_path, words=ODD), "registry/afresh:1").text, encoding="utf-8")
    task = sky.Task.from_yaml_config(
        package("yaml", "pyyaml").safe_load(file.read_text(encoding="utf-8")), secrets_overrides=[("MY_KEY", "x")]
    )
    (resources,) = task.resources
    assert task.num_nodes == 2 and resources.accelerators == {"H100": 8} and resources.cpus == "64+"
    assert task.storage_mounts["/pictures"].source == "s3://my-pictures" and task.volumes == {"/runs": "my-volume"}


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="how afresh comes to the machines"):
        sky_job(whole(tmp_path))
    with pytest.raises(UserError, match="H100:8"):
        sky_job(whole(tmp_path, gpu_kind=None), "x")
    with pytest.raises(UserError, match="runs/a would not be where the job runs"):
        sky_job(whole(tmp_path, out="runs/a"), "x")
    with pytest.raises(UserError, match="/elsewhere would not be"):
        sky_job(whole(tmp_path, data="/elsewhere"), "x")
    with pytest.raises(UserError, match="several nodes cannot write one checkpoint"):
        sky_job(whole(tmp_path, out="/pictures/a"), "x")
    assert sky_job(whole(tmp_path, out="/pictures/a", nodes=1), "x").text
