"""Rules are switched and take values; a data set keeps those that it was made by."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from afresh.core import UserError
from afresh.data.collected import rows
from afresh.services.collect import rules as module
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Rule, Verdict, chosen, rules


def short(record: Record, value: int) -> Verdict:
    return record if len(record.text or "") >= value else f"it has fewer than {value} characters"


SHORT = Rule("short", "A text has some length.", ("text",), short, False, 10, Annotated[int, Field(ge=1)])


@pytest.fixture
def with_short(monkeypatch: pytest.MonkeyPatch) -> None:
    known = (*rules(), SHORT)
    for name in ("afresh.services.collect.rules.rules", "afresh.services.collect.process.rules"):
        monkeypatch.setattr(name, lambda: known)


@pytest.mark.usefixtures("with_short")
def test_a_rule_is_switched_and_takes_a_value() -> None:
    assert "short" not in chosen() and chosen()["line_ends"] is None
    assert chosen(["short"])["short"] == 10 and chosen(["short=3"])["short"] == 3
    assert list(chosen(["short"])) == [r.name for r in module.rules() if r.default or r.name == "short"]
    assert "line_ends" not in chosen(off=["line_ends"])
    assert chosen(["no_text"], before={"short": 4}) == {"no_text": None, "short": 4}


@pytest.mark.usefixtures("with_short")
@pytest.mark.parametrize(
    ("on", "off", "message"),
    [
        (["shorts"], [], "No rule 'shorts'. The rules are: "),
        (["short=0"], [], "The rule short does not take '0': it should be at least 1"),
        (["short=ten"], [], "Its own value is 10"),
        (["line_ends=3"], [], "The rule line_ends takes no value. Given: '3'"),
        (["short=3"], ["short"], "The rule short is switched on and off"),
    ],
)
def test_what_no_rule_accepts_is_refused(on: list[str], off: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        chosen(on, off)


@pytest.mark.usefixtures("with_short")
def test_a_data_set_keeps_its_rules_and_another_value_cleans_it_again(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for text in ("tiny", "a longer text", "another text that is longer"):
        (tmp_path / "texts" / f"{len(text)}.txt").write_text(text)
    out = tmp_path / "set"

    def count(*places: Any, on: list[str]) -> int:
        gather(places, out, on=on)
        return sum(1 for _ in rows(out))

    assert count(place_of(str(tmp_path / "texts")), on=["short"]) == 2
    assert count(on=[]) == 2
    assert count(on=["short=20"]) == 1
    assert count(on=["short=1"]) == 3


def test_every_rule_says_what_it_does_once() -> None:
    names = [rule.name for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", rule.name) and rule.kinds
        assert rule.about.endswith(".") and "\n" not in rule.about
        if rule.value is not None:  # a default that comes back from the manifest or the command line is the same
            assert rule.read(module.shown(rule.value)) == rule.value == json.loads(json.dumps(rule.value))
            assert type(rule.read(module.shown(rule.value))) is type(rule.value)
