"""`afresh sample` under a schema, a regular expression, a grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

import afresh
from afresh.core import UserError
from afresh.engine.sampling.constrained import structure
from tests.faces.cli.conftest import Invoke, drawn, error_of

SCHEMA = {
    "type": "object",
    "properties": {"cat": {"type": "string", "maxLength": 5}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["cat", "n"],
    "additionalProperties": False,
}


def test_texts_are_valid_json(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    """Of a model of words that never saw a brace."""
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    code, printed, _ = invoke("sample", texts_run, "-n", 3, "--json-schema", file, "--prompt", "the ", "--json")
    assert code == 0
    for record in drawn(printed):
        jsonschema.validate(json.loads(record["text"]), SCHEMA)


def test_texts_match_an_expression_or_a_grammar(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("sample", texts_run, "-n", 3, "--regex", "(cat|dog){2}[0-9]", "--json")
    assert code == 0 and all(re.fullmatch("(cat|dog){2}[0-9]", r["text"]) for r in drawn(printed))
    file = tmp_path / "words.lark"
    file.write_text('start: "the " noun\nnoun: "cat" | "mat"\n')
    code, printed, _ = invoke("sample", texts_run, "-n", 3, "--grammar", file, "--json")
    assert code == 0 and {r["text"] for r in drawn(printed)} <= {"the cat", "the mat"}
    code, printed, _ = invoke("sample", texts_run, "-n", 2, "--regex", "", "--json")
    assert code == 0 and [(r["text"], r["finish"]) for r in drawn(printed)] == [("", "end")] * 2


def test_what_cannot_be_kept_is_said(texts_run: Path, pictures_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    def said(*argv: object) -> str:
        code, printed, _ = invoke("sample", *argv, "--json")
        assert code == 2
        return str(error_of(printed)["text"])

    assert "unclosed group" in said(texts_run, "--regex", "a(b")
    assert "lone surrogate" in said(texts_run, "--regex", "\udcff")
    assert "Choose one" in said(texts_run, "--regex", "a", "--grammar", Path(__file__))
    assert "Give a file" in said(texts_run, "--json-schema", tmp_path / "none.json")
    assert "Choose a greater length" in said(texts_run, "--regex", "[a-z]{9}", "--length", 8)
    assert "does not make text" in said(pictures_run, "--regex", "a", "--out", tmp_path / "x")


def test_from_python(texts_run: Path) -> None:
    run = afresh.load(texts_run)
    made = run.sample(2, constraint=structure(run.run.family, run.run.encoder, regex="[ab]{3}"), temperature=0.5)
    assert all(re.fullmatch("[ab]{3}", v) for v in made.values)
    assert structure(run.run.family, run.run.encoder) is None
    with pytest.raises(UserError, match="json_schema and regex"):
        structure(run.run.family, run.run.encoder, json_schema=True, regex="a")
