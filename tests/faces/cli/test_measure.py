"""`afresh measure` and `afresh show` of a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import afresh
from afresh.engine.evaluation.verdict import MEANING
from tests.faces.cli.conftest import Invoke, parsed

SCORE = {"name", "value", "low", "high", "n", "better", "floor", "control"}


def test_measure_gives_a_card_and_scores(texts_run: Path, invoke: Invoke) -> None:
    code, printed, err = invoke("measure", texts_run, "-n", 4, "--json")
    made = parsed(printed)
    assert code == 0 and {"verdict", "card", "metrics"} <= set(made)
    assert made["card"]["samples"] == 4 and made["card"]["id"]
    assert all(set(m) == SCORE for m in made["metrics"])
    bits = next(m for m in made["metrics"] if m["name"] == "bits_per_byte")
    assert bits["better"] == "lower" and 0 < bits["value"] < 8
    assert "report" in err
    saved = json.loads((texts_run / "report.json").read_text())["sections"][0]["verdict"]
    assert saved == made["verdict"] and saved["word"] in MEANING and saved["sentence"] and saved["help"]
    _, sampled, _ = invoke("sample", texts_run, "-n", 2, "--json")
    assert parsed(sampled)["verdict"] == saved["word"]


def test_other_data_is_judged_in_place_of_the_held_out_split(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_text("slept mat cat the " * 20 + f"the {'cat ' * i}\n")
    code, printed, _ = invoke("measure", texts_run, "--data", tmp_path, "-n", 4, "--json")
    assert code == 0 and parsed(printed)["card"]["heldout_size"] == 3


def test_only_metrics_of_the_kind_of_data_are_named(texts_run: Path, invoke: Invoke) -> None:
    code, printed, err = invoke("measure", texts_run, "-n", 4)
    assert code == 0 and printed.startswith("verdict: ") and "bits_per_byte" in printed
    assert "card " in err and not [x for x in err.splitlines() if "not measured" in x and "measures" in x]
    page = (texts_run / "report.html").read_text("utf-8")
    assert "molecule" not in page and "spectrogram" not in page


def test_the_result_in_python_prints_a_short_table(texts_run: Path) -> None:
    found = afresh.load(texts_run).measure(n=4)
    lines = repr(found).splitlines()
    assert lines[0].startswith(f"{found['verdict']['word']}: ") and any("bits per byte" in line for line in lines)
    assert len(repr(found)) < 2_000 and max(map(len, lines)) < 500


def test_runs_lists_what_is_there(pictures_run: Path, texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    shutil.copytree(pictures_run, tmp_path / "a")
    shutil.copytree(texts_run, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("{}")
    (tmp_path / "d").mkdir()
    code, printed, err = invoke("show", tmp_path, "--json")
    a, b = parsed(printed)["runs"]
    assert code == 0 and "not a run record" in err and "c/run.json" in err
    assert (a["run"], a["family"], a["steps"], a["planned"], a["state"]) == (str(tmp_path / "a"), "flow", 4, 4, "done")
    assert (b["family"], b["steps"], b["state"]) == ("transformer", 0, "not begun")
    losses = [json.loads(x).get("heldout_loss") for x in (pictures_run / "metrics.jsonl").read_text().splitlines()]
    assert a["heldout_loss"] == [x for x in losses if x is not None][-1]
    shown = invoke("show", tmp_path)[1]
    assert "flow" in shown and "not begun" in shown


def test_no_run_is_no_error(tmp_path: Path, invoke: Invoke) -> None:
    assert parsed(invoke("show", tmp_path, "--json")[1]) == {"runs": []}
    code, printed, err = invoke("show", tmp_path)
    assert (code, printed) == (0, "") and "afresh train PATH" in err
