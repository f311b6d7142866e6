"""What every verb that is declared promises: the same parameters, and for the same seed the same JSON, from Python, at
the command line and over HTTP; and a description of everything."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import afresh
from afresh.core import registry
from afresh.core.verb import Absent
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note
from afresh.faces.cli import run as command
from afresh.faces.http.app import ServeSettings, make_app
from tests.domains.series.tables import times, train, waves, write_waves
from tests.faces.cli.conftest import parsed
from tests.test_old_runs import unpack


@dataclass(frozen=True)
class VerbRow:
    """A verb with a request of it. `run`: one of tests/old_runs, or one that `train` makes. `options`: from Python;
    `words`: the same as typed. `json`: the same over HTTP, where it differs. `files`: that the words name."""

    name: str
    run: str
    options: Mapping[str, Any]
    words: tuple[str, ...]
    json: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    train: Callable[[Path], object] | None = None


def train_series(out: Path) -> None:
    train(write_waves(out.with_suffix(".csv"), 120), out, steps=2)


SERIES = {"time": times(60), **{name: values.tolist() for name, values in waves(60).items()}}
FUTURE = {"time": times(64)[60:], "heat": [None, 6.0, 6.5, None]}


def as_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    rows = (",".join("" if v is None else str(v) for v in row) for row in zip(*columns.values(), strict=True))
    return "\n".join([",".join(columns), *rows, ""]).encode()


MELODY_BYTES = midi_bytes(MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4))
ROWS = (
    VerbRow(
        "score",
        "text",
        {"text": ["the cat sat", "a dog"], "logprobs": True},
        ("--text", "the cat sat", "--text", "a dog", "--logprobs"),
    ),
    VerbRow("label", "text", {}, ()),
    VerbRow(
        "complete",
        "code",
        {"prefix": "def ", "suffix": "\n", "name": "a.py", "n": 2, "length": 4, "seed": 3},
        ("a.py", "--line", "1", "--column", "5", "-n", "2", "--length", "4", "--seed", "3"),
        files={"a.py": b"def \n"},
    ),
    VerbRow(
        "recommend",
        "interactions",
        {"histories": [["i1", "i2"], []], "k": 3, "explore": 2.0, "seed": 5},
        ("--history", "i1,i2", "--history", "", "-k", "3", "--explore", "2", "--seed", "5"),
    ),
    VerbRow(
        "practise",
        "exercises",
        {"history": [("add-1", True), ("add-2", False)], "k": 2},
        ("--history", "add-1:right,add-2:wrong", "-k", "2"),
        {"history": [{"item": "add-1", "correct": True}, {"item": "add-2", "correct": False}], "k": 2},
    ),
    VerbRow(
        "compose",
        "music",
        {"score": "melody.mid", "n": 2, "settings": {"length": 6}, "seed": 1},
        ("melody.mid", "-n", "2", "--set", "length=6", "--seed", "1"),
        {"score": base64.b64encode(MELODY_BYTES).decode(), "n": 2, "settings": {"length": 6}, "seed": 1},
        files={"melody.mid": MELODY_BYTES},
    ),
    VerbRow(
        "forecast",
        "series",
        {"start": SERIES, "given": FUTURE, "horizon": 6, "members": 4, "seed": 2},
        ("--from", "now.csv", "--given", "then.csv", "--horizon", "6", "--members", "4", "--seed", "2"),
        files={"now.csv": as_csv(SERIES), "then.csv": as_csv(FUTURE)},
        train=train_series,
    ),
)


def test_every_verb_that_is_served_has_a_row() -> None:
    assert {row.name for row in ROWS} == {name for name, verb in registry.verbs().items() if verb.served}


@pytest.mark.parametrize("name", registry.verbs())
def test_everything_is_described(name: str) -> None:
    verb = registry.verb(name)
    assert verb.help and verb.doc and verb.result.startswith("{")
    for parameter in verb.parameters:
        assert parameter.option.help.rstrip("'").endswith("."), parameter.name
    schema = verb.options.model_json_schema()
    offered = {p.name for p in verb.offered if p.option.json is not Absent}
    assert set(schema.get("properties", {})) == offered and schema["additionalProperties"] is False
    assert not any("path" in str(p.option.json) for p in verb.parameters if p.option.json is not None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[VerbRow], None]]:
    """Puts the run and the files of a row into the current folder."""
    monkeypatch.chdir(tmp_path)

    def place(row: VerbRow) -> None:
        if row.train is None:
            unpack(tmp_path, row.run, "data")
        else:
            row.train(Path(row.run))
        for name, content in row.files.items():
            Path(name).write_bytes(content)

    yield place


def command_of(row: VerbRow) -> list[str]:
    """The words that do the verb: a label is shown, and has no command of its own."""
    return ["show", row.run, "--format", "label"] if row.name == "label" else [row.name, row.run]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_all_faces_give_the_same(
    row: VerbRow, here: Callable[[VerbRow], None], capsys: pytest.CaptureFixture[str]
) -> None:
    here(row)
    capsys.readouterr()  # what training said
    own = json.loads(json.dumps(afresh.verb(row.name)(afresh.load(row.run), **row.options).json()))
    assert command([*command_of(row), *row.words, "--json"]) == 0
    typed = parsed(capsys.readouterr().out)
    web = TestClient(make_app(ServeSettings([Path(row.run)], 1 << 30)), "http://127.0.0.1")
    body = {"model": row.run, **(row.options if row.json is None else row.json)}
    answer = web.post(f"/afresh/v1/{row.name}", json=body)
    assert answer.status_code == 200, answer.text
    assert typed.pop("run") == row.run
    served = answer.json()
    for given in (typed, served, own):
        given.pop("event", None), given.pop("files", None), given.pop("notes", None)
    assert rounded(typed) == rounded(own) == rounded(served)


def rounded(value: Any) -> Any:
    """The value with numbers to four digits: batches of different sizes add in different orders."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value
