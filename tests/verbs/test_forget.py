"""Forgetting names the runs that have seen what is forgotten: those that learnt from a version which held it."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.data.collected import manifest, rows
from afresh.data.preferences import preferences
from afresh.engine.training.config import TrainConfig
from afresh.faces.cli import run as command
from afresh.runs.data_lineage import collected_record
from afresh.runs.record import DataRecord, RunRecord
from afresh.services.collect.forget import ForgetRequest
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.rules import rules
from afresh.verbs.forget import witnesses, would_forget


def write(folder: Path, *texts: str) -> Path:
    folder.mkdir()
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(f"{text} is what this one is about, and it says so: {text}.\n")
    return folder


def record_run(name: str, dataset: Path, modality: str = "text", inherited: bool = False) -> Path:
    """A folder with the record of a run that learns from the data set as it is now."""
    collected = collected_record(dataset, modality, {})
    data = DataRecord(
        path=str(dataset),
        validation=None,
        options={},
        split_hash="0",
        train=1,
        heldout=1,
        train_bytes=1,
        heldout_bytes=1,
        notes=[],
        collected=None if inherited else collected,
    )
    record = RunRecord(
        modality=modality,
        family="transformer",
        config={},
        codec=None,
        train=TrainConfig(steps=1, batch=1, micro_batch=1, save_every=1),
        parameters=1,
        data=data,
        decisions=[],
        machine={},
        seed=0,
        inherited=[collected] if inherited and collected is not None else [],
    )
    folder = preferences().runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(record.model_dump_json())
    return folder


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set to which a second source was added; `early` learnt from the first alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFRESH_RUNS", str(tmp_path / "runs"))
    off = [r.name for r in rules() if r.default]
    gather([place_of(str(write(tmp_path / "one", "A lighthouse", "A harbour")))], tmp_path / "set", off=off)
    record_run("early", tmp_path / "set")
    more = place_of(str(write(tmp_path / "two", "A submarine", "A kite")), about={"person": "bo"})
    gather([more], tmp_path / "set")
    record_run("late", tmp_path / "set")
    record_run("tuned", tmp_path / "set", inherited=True)
    record_run("images", tmp_path / "set", "image")
    return tmp_path / "set"


def test_runs_that_learnt_from_a_version_with_it_have_seen_it(dataset: Path, tmp_path: Path) -> None:
    found, seen = would_forget(dataset, ForgetRequest(person="bo"))
    assert found.items == 2 and [w.run.name for w in seen] == ["late", "tuned"] and all(w.certain for w in seen)
    assert [w.run.name for w in would_forget(dataset, ForgetRequest(source=str(tmp_path / "one")))[1]] == [
        "early",
        "late",
        "tuned",
    ]


def test_of_a_version_that_the_journal_does_not_know_it_is_said_that_it_may(dataset: Path) -> None:
    found, _ = would_forget(dataset, ForgetRequest(person="bo"))
    (dataset / "work" / "journal.jsonl").unlink()
    assert {(w.run.name, w.certain) for w in witnesses(dataset, found)} == {
        ("early", False),
        ("late", False),
        ("tuned", False),
    }


def test_the_command_asks_first_and_names_the_runs(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifest(dataset)["digest"]
    assert command(["rm", "--data", str(dataset), "--person", "bo"]) == 2
    assert "Say that it is meant: --yes" in capsys.readouterr().err and manifest(dataset)["digest"] == before
    assert command(["rm", "--data", str(dataset), "--person", "bo", "--yes"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "forgotten: 2 items" in out and "has seen it: " in out and "late" in out and "early" not in out
    assert len(list(rows(dataset))) == 2
    assert command(["rm", "--person", "bo", "--yes"]) == 2
    assert "Name one data set" in capsys.readouterr().err
    assert command(["rm", "--data", str(dataset), "--source", "a", "--item", "b"]) == 2
    assert "--source" in capsys.readouterr().err
