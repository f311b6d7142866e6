"""`afresh train`: what it prints, what it leaves, and how it ends when it is stopped or diverges."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.faces.cli.conftest import FLOW, WORDS, Invoke, error_of, parsed

SCORE = {"name", "value", "low", "high", "n", "better", "floor", "control"}


def test_json_is_alone_on_standard_output_and_complete(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "run"
    code, printed, err = invoke("train", texts, "--steps", 4, "--seed", 3, "--out", out, "--json", *WORDS)
    assert code == 0
    made = parsed(printed)
    assert set(made) == {"run", "modality", "family", "parameters", "steps", "seconds", "metrics", "verdict"}
    assert (made["run"], made["modality"], made["family"], made["steps"]) == (str(out), "text", "transformer", 4)
    assert made["parameters"] > 1000 and made["seconds"] > 0
    assert "bits_per_byte" in {m["name"] for m in made["metrics"]}
    assert all(set(m) == SCORE for m in made["metrics"])
    assert "measured in" in err and (out / "report.html").is_file()


def test_settings_by_hand_are_typed_kept_and_named(digits: Path, pictures_run: Path) -> None:
    record = json.loads((pictures_run / "run.json").read_bytes())
    assert record["config"]["widths"] == [8, 16] and record["train"]["batch"] == 16
    assert ["batch", "16", "set by hand"] in record["decisions"]


def test_sizes_that_a_setting_does_not_go_with_are_left_out(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    """64 is not a multiple of three heads, so the sizes with three heads are not considered."""
    out = tmp_path / "run"
    more = ("--set", "family.width=64", "--set", "family.layers=1", "--data", "context=32")
    assert invoke("train", texts, "--steps", 1, "--out", out, "--no-measure", *more)[0] == 0
    config = json.loads((out / "run.json").read_bytes())["config"]
    assert config["width"] == 64 and 64 % config["heads"] == 0


def test_force_replaces_a_run(digits: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "mine").write_text("old")
    argv = ("train", digits, "--steps", 2, "--out", out, "--no-measure", *FLOW)
    assert invoke(*argv)[0] == 2 and (out / "checkpoints" / "mine").exists()
    code, printed, err = invoke(*argv, "--force")
    assert code == 0 and not (out / "checkpoints" / "mine").exists()
    assert "2 steps" in printed and "report:" in err


def test_ctrl_c_saves_says_how_to_go_on_and_resume_finishes(digits: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "my run"

    def stop() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (out / "metrics.jsonl").is_file():
            time.sleep(0.005)
        while time.monotonic() < deadline and not (out / "metrics.jsonl").read_text().count("\n") > 1:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    code, printed, err = invoke("train", digits, "--steps", 80, "--out", out, "--json", *FLOW)
    thread.join()
    assert code == 130
    message = error_of(printed)["text"]
    assert f"go on with: afresh train --resume '{out}'" in message and "saved at step" in message
    code, printed, err = invoke("train", "--resume", out, "--no-measure", "--json")
    assert code == 0 and "of 80" in err
    assert parsed(printed)["steps"] == 80


def test_resuming_what_is_done_changes_nothing(pictures_run: Path, invoke: Invoke) -> None:
    weights = sorted((pictures_run / "checkpoints").rglob("*.safetensors"))
    before = [w.read_bytes() for w in weights]
    code, printed, err = invoke("train", "--resume", pictures_run, "--no-measure", "--json")
    assert code == 0 and parsed(printed)["steps"] == 4 and "at step 4 of 4" in err
    assert [w.read_bytes() for w in weights] == before


def test_resume_needs_the_same_data(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    data, out = tmp_path / "texts", tmp_path / "run"
    data.mkdir()
    for file in texts.iterdir():
        (data / file.name).write_bytes(file.read_bytes())
    assert invoke("train", data, "--steps", 1, "--out", out, "--no-measure", *WORDS)[0] == 0
    (data / "00.txt").write_text("Other words. " * 20)
    code, _, err = invoke("train", "--resume", out)
    assert code == 2 and "is not what" in err
    for file in data.iterdir():
        file.unlink()
    data.rmdir()
    code, _, err = invoke("train", "--resume", out)
    assert code == 2 and "missing" in err


@pytest.mark.parametrize("rate", ["1e38"])
def test_training_that_diverges_stops_with_code_3_and_a_reason(
    rate: str, digits: Path, tmp_path: Path, invoke: Invoke
) -> None:
    hand = ("--set", f"train.lr={rate}", "--set", "train.warmup=0", "--set", "train.clip=0")
    out = tmp_path / "run"
    code, printed, err = invoke("train", digits, "--steps", 100, "--out", out, "--json", *hand, *FLOW)
    assert code == 3
    assert "diverged" in error_of(printed)["text"] and "--set train.lr" in err
    assert list((out / "checkpoints").iterdir()), "the last good checkpoint is kept"
