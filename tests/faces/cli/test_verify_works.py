"""`afresh verify` of works: who signed them, what has been changed, and whom to trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import afresh
from afresh.core import UserError
from tests.faces.cli.conftest import Invoke, parsed
from tests.services.provenance.conftest import content_of, facts, pem, stranger, write_work


@pytest.fixture
def works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    folder = tmp_path / "works"
    write_work(folder / "a.png", content_of(".png"), facts())
    write_work(folder / "tales" / "b.txt", b"a tale", facts())
    return folder


def test_works_that_nobody_has_changed_are_valid(works: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("verify", works)
    assert code == 0 and printed.count("unchanged since it was signed by you") == 2
    assert "2 of 2 files valid" in printed and "shapes (flow, run 5e5e5e5e5e5e)" in printed
    code, printed, _ = invoke("verify", works / "a.png", "--json")
    made = parsed(printed)
    assert code == 0 and made["passed"] is True
    (layer,) = made["works"][0]["layers"]
    assert layer["name"] == "manifest" and layer["origins"][0]["work"]["recipe"]["seed"] == 7


def test_changed_and_unsigned_files_are_said(works: Path, invoke: Invoke) -> None:
    (works / "tales" / "b.txt").write_bytes(b"another tale")
    (works / "c.png").write_bytes(content_of(".png"))
    code, printed, _ = invoke("verify", works)
    assert code == 1 and "1 of 3 files valid" in printed
    lines = {line.split(":")[0].split("  ")[-1].strip(): line for line in printed.splitlines()}
    assert any(line.startswith("changed") and "b.txt" in line for line in printed.splitlines()), lines
    assert any(line.startswith("nothing found") and "c.png" in line for line in printed.splitlines())


def test_python_reads_the_same(works: Path, tmp_path: Path) -> None:
    assert [w.status for w in afresh.verify_works(works)] == ["valid", "valid"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        afresh.verify_works(tmp_path / "none")


def test_a_folder_without_files_is_no_run_either(tmp_path: Path, invoke: Invoke) -> None:
    code, _, said = invoke("verify", tmp_path)
    assert code == 2 and "is an empty folder" in said.replace("\n", " ")
    (tmp_path / ".hidden").write_text("")
    code, _, said = invoke("verify", tmp_path)
    assert code == 2 and "is not a run" in said.replace("\n", " ")


def test_several_works_are_checked_at_once(works: Path, invoke: Invoke, pictures_run: Path) -> None:
    (works / "c.txt").write_text("words")
    code, printed, _ = invoke("verify", works / "a.png", works / "c.txt", works / "tales")
    assert code == 1 and "3 names: 2 of 3 files valid" in printed
    for looked in ("manifest", "sidecar", "mark of your key", "turned pictures"):
        assert looked in printed
    code, printed, _ = invoke("verify", works / "a.png", works / "tales", "--json")
    assert code == 0 and len(parsed(printed)["works"]) == 2
    code, _, said = invoke("verify", works / "a.png", pictures_run)
    assert code == 2 and "Check it alone" in said.replace("\n", " ")


def test_a_signer_becomes_known(works: Path, invoke: Invoke, tmp_path: Path) -> None:
    by = stranger()
    write_work(works / "a.png", content_of(".png"), facts(), by)
    code, printed, _ = invoke("verify", works / "a.png")
    assert code == 1 and "signer unknown" in printed
    (tmp_path / "c.pem").write_bytes(pem(by.chain[1]))
    code, printed, said = invoke("verify", works / "a.png", "--trust-signer", tmp_path / "c.pem")
    assert code == 0 and "who is known here" in printed and "root" in said
    assert invoke("verify", works / "a.png")[0] == 0


def test_options_of_runs_and_of_works_are_not_mixed(works: Path, invoke: Invoke, pictures_run: Path) -> None:
    for given, words in (
        ((works, "--trust"), "--trust-signer CERT.pem"),
        ((pictures_run, "--trust-signer", works), "is a run"),
        ((works / "missing.png",), "No file"),
    ):
        code, _, said = invoke("verify", *given)
        assert code == 2 and words in said.replace("\n", " ")


def test_names_cannot_command_the_terminal(works: Path, invoke: Invoke) -> None:
    (works / "a\x1b[31m.txt").write_text("words")
    _, printed, _ = invoke("verify", works)
    assert "\x1b[31m" not in printed
    _, printed, _ = invoke("verify", works, "--json")
    assert len(json.loads(printed.splitlines()[-1])["works"]) == 3
