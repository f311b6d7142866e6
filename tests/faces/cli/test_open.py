"""`afresh open`: the page that is opened."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import pytest

from afresh.faces.cli import run as command
from tests import needs


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What would be served, and the addresses that a browser would be sent to."""
    needs.package("fastapi", "fastapi")
    from afresh.faces.http import app as process

    seen: list[Any] = []

    def serve(settings: Any, host: str, port: int, ready: Any, log_file: bool = False) -> None:
        seen.append((host, [p.name for p in settings.places], settings))
        ready("http://127.0.0.1:1")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "serve", serve)
    monkeypatch.setattr(webbrowser, "open", lambda address: seen.append(address))
    return seen


def test_the_studio_opens_on_what_there_is(opened: list[Any]) -> None:
    assert command(["open"]) == 0
    (host, places, settings), address = opened
    assert (host, places) == ("127.0.0.1", ["runs"])
    where, _, ticket = address.partition("?ticket=")
    assert where == "http://127.0.0.1:1/studio/enter"
    assert settings.sessions.redeem(ticket).right.name == "LOCAL" and settings.keys.everybody is None


def test_a_page_is_served_without_a_browser(opened: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["open", "--no-open"]) == 0
    assert len(opened) == 1 and "the studio is at http://127.0.0.1:1/studio/enter?" in capsys.readouterr().err


def test_it_opens_where_one_creates_with_a_run(opened: list[Any], tmp_path: Path) -> None:
    (tmp_path / "runs" / "my pets").mkdir(parents=True)
    (tmp_path / "runs" / "my pets" / "run.json").write_text("{}")
    assert command(["open", "my pets"]) == 0
    assert opened[0][1] == ["my pets", "runs"] and opened[1].endswith("&to=create&run=my+pets")


def test_a_run_that_does_not_exist_is_refused(opened: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["open", "nothing"]) == 2 and not opened
    assert "nothing is not a run" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "right"), [([], "OWN"), (["--set", "local_files=yes"], "LOCAL")])
def test_a_server_without_keys_shows_an_address_to_train_and_remove(
    opened: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], right: str
) -> None:
    (tmp_path / "runs").mkdir()
    assert command(["serve", *options]) == 0
    shown = capsys.readouterr().err.partition("?ticket=")[2].split()[0]
    settings = opened[0][2]
    assert settings.sessions.redeem(shown).right.name == right and settings.keys.everybody.right.name == "USE"


def test_a_server_with_keys_shows_no_address_that_lets_in(
    opened: list[Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "keys").write_text(f"ann {'k' * 16} own\n")
    for options, right in (([], "OWN"), (["--set", "local_files=yes"], "LOCAL")):
        assert command(["serve", "--key-file", "keys", *options]) == 0
        assert [h.right.name for h in opened.pop()[2].keys.holders.values()] == [right]
    assert "ticket" not in capsys.readouterr().err


def test_behind_a_proxy_keys_are_needed(opened: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["serve", "--proxy", "127.0.0.1"]) == 2 and not opened
    assert "--key-file" in capsys.readouterr().err
