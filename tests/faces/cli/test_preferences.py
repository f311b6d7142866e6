"""What the user's settings do to commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.runs.run import Run
from tests.faces.cli.conftest import AT_THE_END, WORDS, Invoke, error_of, parsed


def test_runs_are_put_and_found_in_the_preferred_folder(
    texts: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_RUNS", str(tmp_path / "models"))
    assert invoke("train", texts, "--steps", 4, "--no-measure", *AT_THE_END, *WORDS)[0] == 0
    assert [r["run"] for r in parsed(invoke("show", "--json")[1])["runs"]] == [str(tmp_path / "models" / "texts")]
    assert parsed(invoke("show", "texts", "--json")[1])["steps"] == 4
    _, _, err = invoke("show", "textes")
    assert f"Runs: {tmp_path / 'models' / 'texts'}" in " ".join(err.split())


def test_an_option_comes_before_a_preference(
    texts: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_DEVICE", "abacus")
    code, _, err = invoke("train", texts, "--steps", 1, "--out", tmp_path / "a")
    assert code == 2 and "The device 'abacus' is not available" in " ".join(err.split())
    out = tmp_path / "b"
    given = ("--device", "cpu", "--no-measure", *AT_THE_END, *WORDS)
    assert invoke("train", texts, "--steps", 1, "--out", out, *given)[0] == 0
    assert Run.open(out).train.device == "cpu"


def test_quiet_leaves_warnings_and_errors(
    texts_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_QUIET", "1")
    argv = ("sample", texts_run, "-n", 1, "--length", 4, "--prompt", "the cat " * 20)
    code, out, err = invoke(*argv, "--out", tmp_path / "out", "--json")
    assert code == 0 and "warning: " in err and "1 sample in" not in err and "1 sample in" in out
    assert invoke("show", tmp_path / "nothing")[2]


def test_doctor_says_which_settings_are_in_force(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_MINUTES", "7")
    monkeypatch.setenv("AFRESH_MINUTS", "8")
    monkeypatch.setattr("afresh.verbs.doctor.compile_fault", lambda device: None)  # which takes some seconds
    _, out, _ = invoke("doctor", tmp_path, "--device", "cpu", "--json")
    found = parsed(out)
    assert {"name": "minutes", "value": 7.0, "source": "AFRESH_MINUTES"} in found["settings"]
    assert ("variable", "AFRESH_MINUTS", False) in {(f["name"], f["value"], f["fine"]) for f in found["findings"]}


def test_a_mistake_is_refused_by_every_command(
    texts_run: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFRESH_QUIET", "perhaps")
    for verb in (("show", texts_run), ("sample", texts_run), ("data", texts_run), ("show",)):
        code, out, err = invoke(*verb, "--json")
        assert code == 2 and "AFRESH_QUIET: quiet is 'perhaps'" in " ".join(err.split())
        assert error_of(out)["code"] == "preferences"
    assert invoke("--help")[0] == 0, "help needs no settings"
