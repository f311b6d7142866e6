"""What every verb that is declared promises: the same parameters, and for the same seed the same JSON, from Python, at
the command line and over HTTP; and a description of everything."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import afresh
from afresh.core import registry
from afresh.core.verb import Absent
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note
from afresh.faces.cli import run as command
from afresh.faces.http.app import ServeSettings, make_app
from tests.domains.field.drifting import write_drifting
from tests.domains.series.tables import times, train, waves, write_waves
from tests.domains.table.people import people
from tests.domains.table.people import write as write_people
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


def train_field(out: Path) -> None:
    data = write_drifting(out.with_name("drifting"), 12, 8)
    sizes = {"family.widths": [8], "family.emb": 16, "family.attention": False}
    afresh.train(data, family="flow", steps=2, data={"history": 0}, settings=sizes, out=out, quiet=True)


def train_moving(out: Path) -> None:
    sizes = {"family.widths": [8], "family.emb": 16}
    afresh.train(write_drifting(out.with_name("drifting"), 12, 8), steps=2, settings=sizes, out=out, quiet=True)


def train_table(out: Path) -> None:
    table = write_people(out.with_suffix(".csv"), people(120))
    sizes = {"family.width": 32, "family.layers": 1}
    afresh.train(table, modality="table", steps=2, settings=sizes, out=out, quiet=True)


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def uploaded(name: str, content: bytes) -> dict[str, str]:
    return {"name": name, "content": base64.b64encode(content).decode()}


GAPS = b"age,height,town,code,since,member,spent\n,170.00,Ulm,A,2020-01-05,no,0\n30,,Kiel,C,2020-03-01,yes,7.5\n"
SEEN = npy(np.where(np.arange(16) % 4, np.nan, 4.0))
KNOWN = b"smiles,logS\nCCO,1.0\nCCN,0.5\nCCC,-1.0\nCCCO,0.4\nCCF,0.1\nCCCl,-0.5\n"
SERIES = {"time": times(60), **{name: values.tolist() for name, values in waves(60).items()}}
HOLES = {**SERIES, "load": [None if i in (20, 21) else v for i, v in enumerate(SERIES["load"])]}
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
    VerbRow(
        "fill",
        "series",
        {"start": HOLES, "members": 4, "seed": 2},
        ("--from", "holes.csv", "--members", "4", "--seed", "2"),
        files={"holes.csv": as_csv(HOLES)},
        train=train_series,
    ),
    VerbRow(
        "anomalies",
        "series",
        {"start": SERIES, "members": 10, "seed": 2},
        ("--from", "now.csv", "--members", "10", "--seed", "2"),
        files={"now.csv": as_csv(SERIES)},
        train=train_series,
    ),
    VerbRow(
        "rollout",
        "field",
        {"steps": 2, "members": 2, "at": 1, "seed": 1},
        ("--steps", "2", "--members", "2", "--set", "at=1", "--seed", "1"),
        train=train_moving,
    ),
    VerbRow(
        "assimilate",
        "field",
        {"observations": "seen.npy", "noise": [0.1], "members": 2, "settings": {"steps": 3}, "seed": 1},
        ("seen.npy", "--noise", "0.1", "--members", "2", "--set", "steps=3", "--seed", "1"),
        {
            "observations": uploaded("seen.npy", SEEN),
            "noise": [0.1],
            "members": 2,
            "settings": {"steps": 3},
            "seed": 1,
        },
        files={"seen.npy": SEEN},
        train=train_field,
    ),
    VerbRow(
        "rows",
        "table",
        {"n": 3, "given": {"town": "Ulm"}, "seed": 1},
        ("-n", "3", "--given", "town=Ulm", "--seed", "1"),
        train=train_table,
    ),
    VerbRow(
        "impute",
        "table",
        {"file": "gaps.csv", "draws": 2, "seed": 1},
        ("--from", "gaps.csv", "--set", "draws=2", "--seed", "1"),
        {"file": uploaded("gaps.csv", GAPS), "draws": 2, "seed": 1},
        files={"gaps.csv": GAPS},
        train=train_table,
    ),
    VerbRow(
        "propose",
        "molecule",
        {"observed": "known.csv", "column": "logS", "batch": 2, "budget": 40, "seed": 1},
        ("--observed", "known.csv", "--column", "logS", "--batch", "2", "--set", "budget=40", "--seed", "1"),
        {"observed": uploaded("known.csv", KNOWN), "column": "logS", "batch": 2, "budget": 40, "seed": 1},
        files={"known.csv": KNOWN},
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
