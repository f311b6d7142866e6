"""What a person reads before training: five lines, without the words of the program."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import afresh
from afresh.core.events import Event, listening
from afresh.data.prepare import prepare
from afresh.verbs.console import ConsoleListener
from afresh.verbs.plan_summary import careful_line, seen

SUBJECTS = ["data", "model", "time", "result", "careful"]
INTERNAL = re.compile(r"regime|ema|half_life|mlp|negatives|rope|None|_")


@pytest.fixture
def chairs(tmp_path: Path) -> Path:
    """40 lines on furniture, two of them alike, and a file that cannot be read."""
    folder = tmp_path / "shop notes"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02d}.txt").write_text(
            f"The chair number {i % 39} is {'red' if i % 2 else 'blue'}, and old.\n" * 3
        )
    (folder / "40.txt").write_bytes((folder / "00.txt").read_bytes())
    (folder / "letter.docx").write_bytes(b"PK broken")
    return folder


TINY: dict[str, Any] = {"family.width": 16, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2}


def summary_of(events: list[Event]) -> dict[str, str]:
    return {e.fields["subject"]: e.text.removeprefix(f"{e.fields['subject']}: ") for e in events if e.code == "summary"}


def test_what_is_not_learnt_of_the_data_asks_for_care_whatever_the_words_of_other_notes_are(tmp_path: Path) -> None:
    lines = [f"The chair number {i} is old, and has {i % 5} legs." for i in range(40)]
    (tmp_path / "missing.csv").write_text("\n".join(["text", *(f'"{line}"' for line in lines)]))
    prepared = prepare(tmp_path / "missing.csv")
    assert any("missing.csv" in note for note in prepared.notes) and careful_line(prepared, []) == ""
    (tmp_path / "all.csv").write_text("\n".join(["text,author", *(f'"{line}",ann' for line in lines)]))
    assert "not used: author" in careful_line(prepare(tmp_path / "all.csv"), [])


def test_five_lines_say_what_was_chosen(chairs: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    with listening(heard.append):
        afresh.train(chairs, steps=2, out=tmp_path / "run", settings=TINY, data={"context": 32})
    lines = summary_of(heard)
    assert list(lines) == SUBJECTS
    assert not INTERNAL.search(" ".join(lines.values()).replace(str(tmp_path), "")), lines
    assert re.match(r"texts from shop notes: \d+ to learn from, \d+ held out to judge by", lines["data"])
    assert "1 exact copy" in lines["data"] and "letter.docx" in lines["data"]
    assert "transformer" in lines["model"] and "million parameters" in lines["model"]
    assert lines["time"].startswith("2 steps on the processor") and "of the data is seen" in lines["time"]
    assert "what you begin (`prompt`)" in lines["result"]


def test_details_are_events_and_in_the_record_but_shown_only_if_asked_for(
    chairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for verbose in (False, True):
        heard: list[Event] = []
        out, show = tmp_path / f"run{verbose}", ConsoleListener(verbose=verbose)

        def listener(event: Event, heard: list[Event] = heard, show: ConsoleListener = show) -> None:
            heard.append(event)
            show(event)

        with listening(listener):
            afresh.train(chairs, steps=2, out=out, settings=TINY, data={"context": 32})
        decided = json.loads((out / "run.json").read_text())["decisions"]
        plan = [[e.fields[k] for k in ("name", "value", "reason")] for e in heard if e.code == "plan"]
        assert plan == decided and all(e.detail for e in heard if e.code in ("plan", "data", "split", "data_note"))
        shown[verbose] = capsys.readouterr().err
    assert "epochs" in shown[True] and "epochs" not in shown[False]
    assert len([line for line in shown[False].splitlines() if line.split(": ")[0] in SUBJECTS]) == 5


def test_one_measure_of_time(chairs: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    with listening(heard.append):
        afresh.train(chairs, minutes="3s", out=tmp_path / "run", settings=TINY, data={"context": 32})
    assert re.match(r"0:03 in all, about 0:0|0:\d\d instead of 0:03 in all \(reading", summary_of(heard)["time"])
    last = [e for e in heard if e.code == "training"][-1]
    assert last.fields["seconds_elapsed"] > 2  # of the whole command, not of the steps alone


@pytest.mark.parametrize(
    ("passes", "words"),
    [(0.3, "about 30% of the data is seen"), (1.1, "all of the data is seen about once"), (4.26, "about 4.3 times")],
)
def test_how_much_is_seen_in_words(passes: float, words: str) -> None:
    assert words in seen(passes)
