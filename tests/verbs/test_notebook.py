"""Events in a notebook: one line of progress that is updated, other events as lines. IPython is a stub here."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from afresh import api
from afresh.core import events
from afresh.verbs.console import ConsoleListener, NotebookListener, default_listener


class Publisher:
    """What IPython.display.display publishes, as (action, display id, text)."""

    def __init__(self) -> None:
        self.published: list[tuple[str, int, str]] = []
        self.ids = 0

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        self.ids += 1
        number = self.ids
        self.published.append(("display", number, data["text/plain"]))

        def update(data: dict[str, str], *, raw: bool) -> None:
            assert raw
            self.published.append(("update", number, data["text/plain"]))

        return SimpleNamespace(update=update)


def ipython(monkeypatch: pytest.MonkeyPatch, shell: Any) -> Publisher:
    """Put a stub of IPython, whose shell is `shell`, into sys.modules."""
    publisher = Publisher()
    package: Any = ModuleType("IPython")
    package.get_ipython = lambda: shell
    package.display = ModuleType("IPython.display")
    package.display.display = publisher.display
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", package.display)
    return publisher


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    return ipython(monkeypatch, SimpleNamespace(kernel=object()))


def train() -> None:
    """The events of a short training."""
    events.note("a note")
    events.progress("step 1", "training", ended=False)
    events.warning("look out")
    events.progress("step 2", "training", ended=True)


def test_progress_is_one_line_that_is_updated(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    with api._reporting(quiet=False):
        train()
        train()
    assert publisher.published == [
        ("display", 1, "step 1"),
        ("update", 1, "step 2"),
        ("display", 2, "step 1"),
        ("update", 2, "step 2"),
    ]
    assert capsys.readouterr() == ("a note\n" * 2, "warning: look out\n" * 2)


def test_quiet_shows_nothing(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    with api._reporting(quiet=True):
        train()
    assert publisher.published == [] and capsys.readouterr() == ("", "")


def test_a_listener_of_the_caller_is_preferred(publisher: Publisher) -> None:
    heard: list[str] = []
    with events.listening(lambda e: heard.append(e.text)), api._reporting(quiet=False):
        train()
    assert len(heard) == 4 and publisher.published == []


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["no shell", "a shell in a terminal"])
def test_elsewhere_nothing_changes(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ipython(monkeypatch, shell)
    assert isinstance(default_listener(), ConsoleListener)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(default_listener(), ConsoleListener) and "IPython" not in sys.modules


def test_a_kernel_gets_the_listener_of_notebooks(publisher: Publisher) -> None:
    assert isinstance(default_listener(), NotebookListener)
