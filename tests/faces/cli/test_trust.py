"""A run from another user is data: what its run.json names is executed and read only after consent."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.fuzz.mutations import correct_hashes

import afresh
from afresh.core import UserError
from afresh.data.storage.secret import secret, secret_file
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.runs.signature import made_here, sign
from tests.faces.cli.conftest import WORDS, Invoke

STEPS = ("--steps", "1", "--no-measure", "--length", "4", "--set", "train.batch=8", "--set", "align.group=4")
SCORE = "while read item; do echo 1.5; done"  # a program for a shell
Stranger = Callable[..., Path]


@pytest.fixture(scope="module")
def steered(texts_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was aligned here for one step, with the program of its reward in the folder of the command."""
    root = tmp_path_factory.mktemp("steered")
    script = root / "score.sh"
    script.write_text(f"#!/bin/sh\necho >> calls\n{SCORE}\n")
    script.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        argv = ["align", str(texts_run), "--method", "grpo", "--reward", "!./score.sh", "--out", "run", *STEPS]
        assert command(argv) == 0
    return root / "run"


@pytest.fixture
def stranger(steered: Path, tmp_path: Path) -> Stranger:
    """A copy of the run, with other values in its run.json: {"align": {...}, "data": {...}, ...}."""

    def make(finished: bool = False, **changes: Any) -> Path:
        out = tmp_path / "stranger"
        shutil.copytree(steered, out)
        if not finished:  # then there is something left to learn
            shutil.rmtree(out / "checkpoints")
        record = json.loads((out / "run.json").read_bytes())
        for part, value in changes.items():
            record[part] = {**record[part], **value} if isinstance(value, dict) else value
        (out / "run.json").write_text(json.dumps(record))
        correct_hashes(out)
        return out

    return make


def test_a_run_of_ones_own_goes_on_from_any_folder(
    stranger: Stranger, steered: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = stranger(), (steered.parent / "calls").stat().st_size
    monkeypatch.chdir(tmp_path)
    code, _, err = invoke("train", "--resume", own, "--no-measure")
    assert code == 0, err
    assert (steered.parent / "calls").stat().st_size > calls, "the program runs in the folder of the first command"


@pytest.mark.parametrize("part", ["reward", "heldout_reward"])
@pytest.mark.parametrize(
    "words",
    [
        "!sh -c 'touch MARK; SCORE'",
        "length - 0.5*'!sh -c \"touch MARK\"'",
        "FOLDER/evil.py:score",
        "'FOLDER/evil.py:score' + length",
        "evil:score",
    ],
)
def test_what_a_stranger_names_is_shown_and_not_run(
    part: str, words: str, stranger: Stranger, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef score(items):\n    return [1.0] * len(items)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = words.replace("MARK", str(mark)).replace("SCORE", SCORE).replace("FOLDER", str(tmp_path))
    run = stranger(align={part: words})
    code, _, err = invoke("train", "--resume", run, "--no-measure")
    assert code == 2 and "was not made here" in err and "--trust" in err and "run the program: " in err
    assert ("touch" in err or "evil" in err) and not mark.exists()
    with pytest.raises(UserError, match=r"not made here.*`trust=True`"):
        afresh.resume(run, quiet=True)
    assert not mark.exists()


def test_nothing_else_asks_nor_runs_it(stranger: Stranger, texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    mark = tmp_path / "mark"
    run = stranger(True, align={"reward": f"!sh -c 'touch {mark}; {SCORE}'"})
    steps = ("--steps", "1", "--no-measure")
    for argv in (
        ("sample", run, "-n", 1, "--length", 4),
        ("measure", run, "-n", 2),
        ("verify", run),
        ("show", run),
        ("tune", run, texts, *steps, "--out", tmp_path / "tuned"),
        ("align", run, "--reward", "length", *STEPS, "--out", tmp_path / "aligned"),
        ("export", run, "--to", "safetensors", "--out", tmp_path / "exported"),
    ):
        code, _, err = invoke(*argv)
        assert code == 0, err
        assert not mark.exists(), argv


def test_trust_says_what_it_runs_and_is_remembered(stranger: Stranger, tmp_path: Path, invoke: Invoke) -> None:
    mark = tmp_path / "mark"
    run = stranger(align={"reward": f"!sh -c 'touch {mark}; {SCORE}'"})
    assert not made_here(Run.open(run))
    code, _, err = invoke("train", "--resume", run, "--no-measure", "--trust")
    assert code == 0 and f"trusted: run the program: !sh -c 'touch {mark}" in err and mark.exists()
    assert made_here(Run.open(run))
    assert invoke("train", "--resume", run, "--no-measure")[0] == 0
    record = json.loads((run / "run.json").read_bytes())
    record["align"]["reward"] = "!false"
    (run / "run.json").write_text(json.dumps(record))
    assert invoke("train", "--resume", run, "--no-measure")[0] == 2, "what was trusted is no longer what is named"


def test_a_person_at_a_terminal_is_asked(
    stranger: Stranger, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    run = stranger(align={"reward": f"!sh -c 'touch {mark}; {SCORE}'"})
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for said, code in ((False, 2), (True, 0)):
        monkeypatch.setattr("typer.confirm", lambda *a, said=said, **k: said)
        ended, _, err = invoke("train", "--resume", run, "--no-measure")
        assert ended == code and "touch" in err, err
        assert mark.exists() is said


def test_paths_that_lead_elsewhere_are_shown(stranger: Stranger, texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    elsewhere = tmp_path / "private"
    shutil.copytree(texts, elsewhere)
    run = stranger(data={"path": str(elsewhere)}, align={"reward": "length", "preferences": None})
    code, _, err = invoke("train", "--resume", run, "--no-measure")
    assert code == 2 and f"read the data: {elsewhere}" in err and "read the base model: " in err
    assert "run the program" not in err
    shutil.move(elsewhere, run / "texts")
    record = json.loads((run / "run.json").read_bytes())
    record["data"]["path"], record["base_model"] = str(run / "texts"), "somebody/model"
    (run / "run.json").write_text(json.dumps(record))
    code, _, err = invoke("train", "--resume", run, "--no-measure")
    assert code == 0, "nothing outside the run is named: " + err


def test_measuring_says_where_a_stranger_reads_and_reads_nothing_else(
    stranger: Stranger, texts: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run = stranger(True, data={"path": str(tmp_path / "private")}, align={"reward": "length"})
    shutil.copytree(texts, tmp_path / "private")
    code, _, err = invoke("measure", run, "-n", 2)
    assert code == 0 and f"not made here, is read in {tmp_path / 'private'}" in err
    (tmp_path / "private" / "00.txt").write_text("a secret of this user\n")
    for more in ((), ("--data", texts)):
        code, _, err = invoke("measure", run, "-n", 2, *more)
        assert code == 2 and "is not what" in err, "other data than the run has learnt goes into no report"


def test_the_secret_is_the_users_alone(steered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made_here(Run.open(steered))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    assert secret() is None and not made_here(Run.open(steered)), "another user"
    made = [secret(make=True), secret(make=True), secret()]
    assert made[0] is not None and made.count(made[0]) == 3 and len(made[0]) == 32
    assert stat.S_IMODE(secret_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_file().parent.stat().st_mode) == 0o700
    assert [p.name for p in secret_file().parent.iterdir()] == ["secret"]
    assert not made_here(Run.open(steered))
    own = tmp_path / "copy"
    shutil.copytree(steered, own)
    sign(Run.open(own))
    assert made_here(Run.open(own))
    secret_file().write_bytes(b"")
    assert not made_here(Run.open(own))
    with pytest.raises(UserError, match="damaged"):
        sign(Run.open(own))


def test_processes_that_begin_together_have_one_secret(tmp_path: Path) -> None:
    program = "from afresh.data.storage.secret import secret; print(secret(make=True).hex())"
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path)}
    each = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env) for _ in range(3)]
    assert len({p.communicate()[0] for p in each}) == 1


def test_training_goes_on_where_no_secret_can_be_kept(
    texts: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    out = tmp_path / "run"
    code, _, err = invoke("train", texts, "--steps", 1, "--no-measure", "--out", out, *WORDS)
    assert code == 0 and "cannot be signed" in err and "whether it is trusted" in err
    assert invoke("train", "--resume", out, "--no-measure")[0] == 2
    code, _, err = invoke("train", "--resume", out, "--no-measure", "--trust")
    assert code == 0 and "asked for again" in err


def test_trust_is_of_a_run_that_exists(texts: Path, invoke: Invoke) -> None:
    code, _, err = invoke("train", texts, "--trust")
    assert code == 2 and "--resume RUN" in err


@pytest.mark.parametrize("place", ["samples/000019.txt", "metrics.jsonl", "checkpoints", "encoder/tokenizer.json"])
def test_links_are_not_followed_out_of_a_run(place: str, stranger: Stranger, tmp_path: Path, invoke: Invoke) -> None:
    run, private = stranger(True), tmp_path / "private.txt"
    private.write_text("a secret of this user\n")
    link = run / place
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(private)
    for argv in (("show", run), ("sample", run), ("measure", run), ("verify", run), ("train", "--resume", run)):
        code, out, err = invoke(*argv)
        assert code == 2 and f"{link} is a link to {private}" in err and "a secret" not in out + err
    assert "is a link" in invoke("show", run.parent)[2]
    assert invoke("rm", run, "--yes")[0] == 0 and not run.exists() and private.exists()


def test_links_within_a_run_and_to_a_run_are_followed(stranger: Stranger, tmp_path: Path, invoke: Invoke) -> None:
    run = stranger(True)
    (run / "metrics.jsonl").rename(run / "kept")
    (run / "metrics.jsonl").symlink_to("kept")
    (tmp_path / "link").symlink_to(run)
    assert invoke("show", tmp_path / "link")[0] == 0
    os.mkfifo(run / "samples" / "pipe.txt")
    code, _, err = invoke("show", run)
    assert code == 2 and "neither a file nor a folder" in err
