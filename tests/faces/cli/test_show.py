"""`afresh show`: what a run is, at a glance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.faces.cli.conftest import Invoke, parsed

VERDICT = {"word": "noise", "sentence": "The images look like noise.", "help": "Train longer.", "command": "afresh x"}


@pytest.fixture
def judged(pictures_run: Path, tmp_path: Path) -> Path:
    """A run whose report has a verdict."""
    run = Path(shutil.copytree(pictures_run, tmp_path / "run"))
    report = json.loads((run / "report.json").read_bytes())
    report["sections"][0]["verdict"] = VERDICT
    (run / "report.json").write_text(json.dumps(report))
    return run


def test_a_run_of_images(judged: Path, invoke: Invoke, request: pytest.FixtureRequest) -> None:
    code, out, err = invoke("show", judged)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == f"run:          {judged}" and lines[1].startswith("model:        flow on image, ")
    assert "verdict:      noise. The images look like noise. Train longer." in lines
    assert f"report:       {judged / 'report.html'}" in lines
    assert f"preview:      {judged / 'samples' / '000004.png'} (step 4)" in lines
    assert lines[-2] == f"  afresh sample {judged} -n 16 --out run-samples" and "\x1b" not in out
    request.getfixturevalue("terminal")
    shown = invoke("show", judged)[1]
    assert "▀" in shown and "preview:" not in shown


@pytest.fixture
def unmeasured(texts_run: Path, tmp_path: Path) -> Path:
    """A copy of the shared run without the report that another test may have written."""
    return Path(shutil.copytree(texts_run, tmp_path / "texts", ignore=shutil.ignore_patterns("report.json")))


def test_a_run_of_texts_shows_what_it_wrote_last(unmeasured: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("show", unmeasured)
    assert code == 0 and "preview of step 4:\n" in out and '--prompt "..."' in out
    assert "verdict" not in out, "nothing was measured"


def test_json_holds_the_same(judged: Path, unmeasured: Path, invoke: Invoke) -> None:
    found = parsed(invoke("show", judged, "--json")[1])
    assert found["verdict"] == VERDICT and found["steps"] == 4 and found["state"] == "done"
    assert Path(found["preview"]).is_file() and Path(found["report"]).is_file()
    assert [c.split()[1] for c in found["next"]] == ["sample", "measure"]
    assert parsed(invoke("show", unmeasured, "--json")[1])["verdict"] is None


def test_a_run_that_was_stopped_is_resumed_next(judged: Path, invoke: Invoke) -> None:
    shutil.rmtree(judged / "checkpoints")
    shutil.rmtree(judged / "samples")
    (judged / "report.html").unlink()
    found = parsed(invoke("show", judged, "--json")[1])
    assert found["next"] == [f"afresh train --resume {judged}"]
    assert (found["preview"], found["report"]) == (None, None)
