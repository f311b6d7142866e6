"""`--json`: a line of JSON an event on standard output, of which the last is the result or the error."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.faces.cli.conftest import AT_THE_END, WORDS, Invoke, drawn, error_of, lines_of, parsed
from tests.warm import Warm

CRASHING = """
import afresh.verbs.doctor, afresh.faces.cli
def broken(*given):
    raise ZeroDivisionError("division by zero")
afresh.verbs.doctor.examine_machine = broken
afresh.faces.cli.main()
"""


def test_training_streams_its_events_and_the_result_is_last(texts: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = tmp_path / "run"
    argv = ("train", texts, "--steps", 4, "--out", run, "--no-measure", "--json", *AT_THE_END, *WORDS)
    code, out, err = invoke(*argv)
    assert code == 0, err
    found = lines_of(out)
    assert {"progress", "note"} <= {e["event"] for e in found}
    assert all(e["code"] and e["text"] for e in found[:-1])
    last = [e for e in found[:-1] if e["code"] == "training"][-1]
    assert (last["step"], last["steps"], last["ended"]) == (4, 4, True)
    assert {"summary", "plan", "split"} <= {e["code"] for e in found if e["event"] == "note"}
    assert all(e["text"] in err for e in found if e.get("code") == "summary" and "`" not in e["text"])
    assert (found[-1]["run"], found[-1]["steps"]) == (str(run), 4)


def test_an_interrupted_training_ends_with_an_error(texts: Path, tmp_path: Path, warm: Warm) -> None:
    run = tmp_path / "run"
    argv = ("train", texts, "--steps", 100_000, "--out", run, "--no-measure", "--json", *WORDS)
    process = warm.start("-m", "afresh", *argv, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if json.loads(line).get("step"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    error = error_of(seen + out)
    assert error["code"] == "interrupted" and f"afresh train --resume {run}" in error["text"]


def test_a_crash_ends_with_an_error_and_a_traceback(warm: Warm) -> None:
    process = warm.start("-c", CRASHING, "doctor", "--json", stdout=PIPE, stderr=PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 70 and "Traceback" in err
    assert lines_of(out) == [{"event": "error", "code": "fault", "text": "ZeroDivisionError: division by zero"}]


def test_a_reader_that_goes_away_does_not_end_training(texts: Path, tmp_path: Path, warm: Warm) -> None:
    run = tmp_path / "run"
    argv = ("train", texts, "--steps", 4, "--out", run, "--no-measure", "--json", *AT_THE_END, *WORDS)
    process = warm.start("-m", "afresh", *argv, stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["event"] in ("note", "progress")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in err and "step 4/4" in err
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    "argv", [("train", "{missing}"), ("train", "{missing}", "--steps", "many"), ("sample",), ("show", "{missing}")]
)
def test_an_error_of_usage_is_the_only_line(argv: tuple[str, ...], tmp_path: Path, invoke: Invoke) -> None:
    exit_code, out, err = invoke(*(a.replace("{missing}", str(tmp_path / "missing")) for a in argv), "--json")
    (error,) = lines_of(out)
    assert exit_code == 2 and error["event"] == "error" and error["code"] in ("usage", "invalid")
    assert " ".join(error["text"].split()) in " ".join(err.split())


def test_what_is_typed_as_options_is_written_as_options(texts_run: Path, invoke: Invoke) -> None:
    error = error_of(invoke("sample", texts_run, "--guidance", 2, "--json")[1])
    assert "--guidance" in error["text"] and "`guidance" not in error["text"]


def test_warnings_and_notes_of_drawing_come_before_the_samples(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    _, out, _ = invoke("sample", texts_run, "-n", 2, "--length", 4, "--out", tmp_path / "out", "--json")
    first, *_ = lines_of(out)
    assert first == {"event": "note", "code": "note", "text": f"2 samples in {tmp_path / 'out'}"}
    assert len(drawn(out)) == 2


def test_many_samples_are_counted(pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    _, out, _ = invoke("sample", pictures_run, "-n", 300, "--steps", 1, "--out", tmp_path / "grid.png", "--json")
    counted = [(e["done"], e["total"]) for e in lines_of(out)[:-1] if e["code"] == "sampling"]
    assert counted == [(256, 300), (300, 300)]


def test_a_short_command_is_one_line(texts_run: Path, invoke: Invoke) -> None:
    _, out, _ = invoke("show", texts_run, "--json")
    assert out.count("\n") == 1 and parsed(out)["steps"] == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_ends_the_command_with_a_message(texts: Path, tmp_path: Path, warm: Warm) -> None:
    argv = ("train", texts, "--steps", 1, "--out", tmp_path / "run", "--json")
    with Path("/dev/full").open("wb") as full:
        process = warm.start("-m", "afresh", *argv, stdout=full, stderr=PIPE)
    _, err = process.communicate()
    assert process.returncode == 2 and "No space left" in err and "Traceback" not in err
