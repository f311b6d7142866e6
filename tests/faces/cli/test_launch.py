"""`afresh launch`: commands as jobs, with programs that stand for those of the engines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afresh.faces.cli.go_on import continued
from tests.faces.cli.conftest import Invoke, error_of, parsed
from tests.verbs.launch.jobs import put_programs

TRAIN = ("--", "train", "data", "--minutes", "60", "--out", "runs/a")
MOUNTED = ("--", "train", "/data/a", "--minutes", "60", "--out", "/runs/a")
MOUNTS = ("--mount", "/data=s3://photos", "--mount", "/runs=volume")
JOBS = {
    "slurm": (*TRAIN,),
    "k8s": ("--mount", "/data=photos", "--mount", "/runs=runs", *MOUNTED),
    "sky": (*MOUNTS, "--gpus", "H100:1", "--image", "x", "--env", "KEY", *MOUNTED),
}
SUBMITTED = {
    "slurm": ("sbatch", "a.sbatch\n"),
    "k8s": ("kubectl", "apply -f -\n"),
    "sky": ("sky", "launch --yes --detach-run --down --cluster a --secret KEY a.sky.yaml\n"),
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, in which the command works, and no programs of engines."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tmp_path


@pytest.mark.parametrize("engine", JOBS)
def test_a_job_file_is_shown_or_written(engine: str, here: Path, invoke: Invoke) -> None:
    code, shown, said = invoke("launch", engine, *JOBS[engine])
    assert code == 0 and f"`afresh launch {engine}`" in shown and "note: " in said
    assert sorted(p.name for p in here.iterdir()) == ["data"]
    code, out, _ = invoke("launch", engine, "--file", "jobs/a", *JOBS[engine])
    assert code == 0 and out == "" and (here / "jobs/a").read_text(encoding="utf-8") == shown
    code, out, _ = invoke("launch", engine, "--json", *JOBS[engine])
    made = parsed(out)
    assert made["text"] == shown and made["file"] is None and made["submitted"] is None and made["notes"]


@pytest.mark.parametrize("engine", JOBS)
def test_a_job_is_handed_to_its_engine(engine: str, here: Path, invoke: Invoke) -> None:
    program, words = SUBMITTED[engine]
    put_programs(here / "bin", {program: f'echo "$@" > {here}/words; cat > {here}/input; echo Submitted 7'})
    code, out, _ = invoke("launch", engine, "--submit", "--json", *JOBS[engine])
    made = parsed(out)
    assert code == 0 and made["submitted"] == "Submitted 7"
    assert (here / "words").read_text() == words
    assert (here / "input").read_text(encoding="utf-8") == (made["text"] if engine == "k8s" else "")
    assert (here / made["file"]).read_text(encoding="utf-8") == made["text"]


@pytest.mark.parametrize("engine", JOBS)
def test_without_the_program_the_job_stays_in_a_file(engine: str, here: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("launch", engine, "--submit", "--json", *JOBS[engine])
    error = error_of(out)
    program, _ = SUBMITTED[engine]
    assert code == 2 and error["code"] == "program_missing" and (here / error["file"]).is_file()
    assert f"The program {program} is not on this machine. The job is in {error['file']}" in error["text"]


def test_an_engine_that_refuses_is_quoted(here: Path, invoke: Invoke) -> None:
    put_programs(here / "bin", {"sbatch": "echo 'sbatch: error: no such partition' >&2; exit 1"})
    code, _, said = invoke("launch", "slurm", "--submit", *TRAIN)
    assert code == 2 and "exit code 1: sbatch: error: no such partition" in said and "a.sbatch" in said


def test_a_file_of_another_kind_is_not_overwritten(here: Path, invoke: Invoke) -> None:
    (here / "letter").write_text("mine")
    code, _, said = invoke("launch", "slurm", "--file", "letter", *TRAIN)
    assert code == 2 and "holds something else" in said and (here / "letter").read_text() == "mine"
    assert invoke("launch", "slurm", "--file", "letter", "--force", *TRAIN)[0] == 0
    assert invoke("launch", "slurm", "--file", "letter", *TRAIN)[0] == 0  # the same file again


def test_what_the_command_reads_is_listed(here: Path, texts_run: Path, invoke: Invoke) -> None:
    """A file within a value, and a run by its name, too."""
    (here / "runs").mkdir()
    (here / "runs/notes").symlink_to(texts_run)
    (here / "score.py").write_text("def best(items):\n    return [0.0 for _ in items]\n")
    words = ("align", "notes", "--reward", "score.py:best + length:min=60", "--minutes", "5", "--out", "runs/a")
    code, _, said = invoke("launch", "slurm", "--", *words)
    assert code == 0
    for path in ("runs/notes", "score.py", "runs/a"):
        assert f"all nodes must see at the same path: {here / path}\n" in said


def test_a_run_that_is_there_is_gone_on_with(here: Path, invoke: Invoke) -> None:
    (here / "runs/a").mkdir(parents=True)
    (here / "runs/a/run.json").write_text("{}")
    assert "runs/a is a run already: the job goes on with it" in invoke("launch", "slurm", *TRAIN)[2]
    words = ["--verbose", "--json", "--no-measure", "--seed", "3", "--log", "tensorboard", "--log", "wandb"]
    for command in (["train", "data"], ["tune", "base", "data"], ["distill", "a"], ["align", "a", "--reward", "x"]):
        assert continued([*command, "--out", "runs/a", *words]) == [
            *("train", "--resume", "runs/a", "--log", "tensorboard", "--log", "wandb"),
            *("--no-measure", "--verbose", "--json"),
        ]
        assert continued([*command, "--out", "runs/b", *words]) == [*command, "--out", "runs/b", *words]
    for command in (["train", "--resume", "runs/a"], ["train", "--out", "runs/a", "--nothing"], ["sample", "runs/a"]):
        assert continued(command) == command


WRONG = {
    "ray -- train data --out a": "'ray' is not an engine. Choose from: slurm, k8s, sky.",
    "slurm": "Say what to launch",
    "slurm --": "Say what to launch",
    "slurm -- sample a": "'sample' is not a verb that trains. Launch one of: train, tune, distill, align.",
    "slurm -- --minutes 5": "'--minutes' is not a verb that trains",
    "slurm -- train --minutes 5 --out a": "does not say what to learn from",
    "slurm -- train data --minuts 5 --out a": "--minuts",
    "slurm -- train data --steps many --out a": "'--steps': it should be a whole number",
    "slurm -- train data --minutes 5": "Give the command --out",
    "slurm -- train data --out a": "Give --set time",
    "slurm -- train data --minutes 5 --out a --force": "Leave --force out",
    "slurm -- train ../data --minutes 5 --out a": "../data leaves this folder",
    "slurm -- train data --minutes 5 --out x/../../a": "leaves this folder",
    "slurm -- train data --minutes 5 --out s3://bucket/a": "looks for its run in a folder",
    "slurm -- train postgresql://u:pw@host/db --minutes 5 --out a": "holds a password",
    "slurm -- tune notes data --adapter anna --minutes 5": "adapter of a person",
    "slurm --nodes 0 -- train data --minutes 5 --out a": "'--nodes': it should be at least 1",
    "slurm --gpus many -- train data --minutes 5 --out a": "--gpus many is not a number of GPUs",
    "slurm --gpus 2 --processes 3 -- train data --minutes 5 --out a": "3 processes cannot share 2 GPUs",
    "slurm --name Ä -- train data --minutes 5 --out a": "--name Ä names no job",
    "slurm --env KEY=s3cret -- train data --minutes 5 --out a": "--env KEY must be the name of a variable alone",
    "slurm --image x --set kind=jobset -- train data --minutes 5 --out a": "--set kind: slurm has no such",
    "k8s --set time=5 -- train data --minutes 5 --out a": "--set time: k8s has no such option",
    "k8s --mount data=a -- train /data --minutes 5 --out /data/a": "--mount data: a place begins with /",
    "k8s --mount /data -- train /data --minutes 5 --out /data/a": "--mount /data: give the folder",
    "k8s --mount /d=a --mount /d/=b -- train /d --minutes 5 --out /d/a": "--mount /d is given twice",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_words_are_refused_and_nothing_is_written(line: str, here: Path, invoke: Invoke) -> None:
    code, out, said = invoke("launch", *line.split())
    assert (code, out) == (2, "") and WRONG[line] in said and "s3cret" not in said
    assert sorted(p.name for p in here.iterdir()) == ["data"]
