"""`afresh collect --rules`: every rule, and which of them are applied."""

from __future__ import annotations

from pathlib import Path

from afresh.services.collect.rules import rules
from tests.faces.cli.conftest import Invoke, parsed


def test_rules_are_listed_as_they_would_be_applied(invoke: Invoke, tmp_path: Path) -> None:
    code, printed, _ = invoke("collect", "--rules", "--rule", "words_few=7", "--no-rule", "letters", "--json")
    listed = {row["name"]: row for row in parsed(printed)["rules"]}
    assert code == 0 and list(listed) == [r.name for r in rules()]
    assert listed["words_few"]["applied"] and listed["words_few"]["value"] == 7
    assert not listed["letters"]["applied"] and listed["letters"]["about"]
    assert "words_few" in invoke("collect", "--rules")[1]


def test_those_of_a_data_set_are_listed(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("A river ran below the old bridge.")
    out = tmp_path / "set"
    assert invoke("collect", tmp_path / "notes.txt", "--into", out, "--rule", "words_few=7")[0] == 0
    listed = {row["name"]: row for row in parsed(invoke("collect", "--rules", "--into", out, "--json")[1])["rules"]}
    assert listed["words_few"]["applied"] and listed["words_few"]["value"] == 7
    code, _, error = invoke("collect", "--rules", "--rule", "words_few=none")
    assert code != 0 and "words_few does not take 'none'" in error
