"""`afresh --events FILE`: the events of a command as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import AT_THE_END, WORDS, Invoke, parsed


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_training_is_recorded_and_later_commands_are_appended(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    file, run = tmp_path / "events.jsonl", tmp_path / "run"
    argv = ("train", texts, "--steps", 4, "--out", run, "--no-measure", "--json", *AT_THE_END, *WORDS)
    code, out, err = invoke("--events", file, *argv)
    assert code == 0 and parsed(out)["steps"] == 4
    first = lines(file)
    assert {"progress", "note"} <= {e["event"] for e in first}
    assert all(e["code"] and e["text"] for e in first)
    last = [e for e in first if e["code"] == "training"][-1]
    assert (last["step"], last["steps"], last["ended"]) == (4, 4, True)
    assert any(e["text"].startswith("report: ") for e in first)
    assert all(e["text"] in err for e in first if e["event"] == "note"), "standard error shows the notes as before"
    assert invoke("--events", file, "sample", run, "-n", 1, "--length", 4, "--out", tmp_path / "out")[0] == 0
    after = lines(file)
    assert after[: len(first)] == first
    assert [e["text"] for e in after[len(first) :]] == [f"1 sample in {tmp_path / 'out'}"]


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("train", "{missing}"), "usage"),
        (("train", "{missing}", "--steps", "many"), "usage"),
        (("sample",), "usage"),
    ],
)
def test_an_error_is_the_last_event(argv: tuple[str, ...], code: str, tmp_path: Path, invoke: Invoke) -> None:
    file = tmp_path / "events.jsonl"
    given = [a.replace("{missing}", str(tmp_path / "missing")) for a in argv]
    exit_code, _, err = invoke("--events", file, *given)
    event = lines(file)[-1]
    assert exit_code == 2 and event["event"] == "error" and event["code"] == code
    assert " ".join(event["text"].split()) in " ".join(err.split())


def test_a_fault_is_recorded_before_it_is_raised(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("afresh.tasks.doctor.examine_machine", broken)
    file = tmp_path / "events.jsonl"
    with pytest.raises(ZeroDivisionError):
        invoke("--events", file, "doctor")
    assert lines(file) == [{"event": "error", "code": "fault", "text": "ZeroDivisionError: division by zero"}]


def test_what_is_typed_as_options_is_written_as_options(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    file = tmp_path / "events.jsonl"
    invoke("--events", file, "sample", texts_run, "--guidance", 2)
    assert "--guidance" in lines(file)[-1]["text"] and "`guidance" not in lines(file)[-1]["text"]


def test_standard_output_is_refused(invoke: Invoke) -> None:
    code, out, err = invoke("--events", "-", "doctor")
    assert code == 2 and not out and "reserved for the result of --json" in " ".join(err.split())


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, invoke: Invoke) -> None:
    code, out, err = invoke("--events", tmp_path, "doctor")
    assert code == 2 and not out and "Choose another file" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_command_with_a_message(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, _, err = invoke("--events", "/dev/full", "train", texts, "--steps", 1, "--out", tmp_path / "run")
    assert code == 2 and "No space left" in err


def test_after_the_command_the_message_says_where_it_belongs(tmp_path: Path, invoke: Invoke) -> None:
    code, _, err = invoke("doctor", "--events", tmp_path / "events.jsonl")
    assert code == 2 and "before the command" in err
