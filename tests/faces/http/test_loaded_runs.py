"""Which runs a server holds: the newest weights, and those that were used last."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from afresh.core import events
from afresh.engine.sampling.request import Request
from afresh.faces.http.loaded_runs import Library, Served, newest, packed_bytes
from afresh.faces.http.request_threads import noted


@pytest.fixture
def place(runs: Path, tmp_path: Path) -> Path:
    """Three runs of the same size."""
    for name in ("a", "b", "c"):
        shutil.copytree(runs / "stories", tmp_path / name)
    return tmp_path


def used(library: Library, name: str) -> Served:
    """A run that was asked for, and is not any more."""
    served = library.acquire(name)
    library.release(served)
    return served


def test_what_was_not_used_for_the_longest_time_is_forgotten_first(place: Path) -> None:
    library = Library([place], 2**30)
    size = used(library, "a").bytes
    library.memory = int(2.5 * size)
    used(library, "b")
    used(library, "a")
    used(library, "c")
    assert set(library.held) == {"a", "c"}
    held = library.acquire("a")
    used(library, "c")
    used(library, "b")
    assert set(library.held) == {"a", "b"}, "what is in use is not forgotten"
    library.release(held)
    library.close()


def test_newer_weights_are_loaded_as_soon_as_nobody_uses_the_older_ones(place: Path) -> None:
    library, newer = Library([place], 2**30), place / "a" / "checkpoints" / newest(place / "a")
    newer.rename(place / newer.name)
    old = library.acquire("a")
    (place / newer.name).rename(newer)
    assert used(library, "a") is old and old.version < newer.name
    library.release(old)
    assert used(library, "a").version == newer.name and library.held["a"] is not old
    library.close()


def test_copies_of_weights_that_drawing_makes_count(place: Path) -> None:
    library = Library([place], 2**30)
    served = library.acquire("a")
    assert served.bytes == served.weights > 0
    cond, _, _ = served.run.condition(1, Request("Once"), 0)
    settings = served.run.settings({"length": 3, "weights": "bfloat16"})
    served.lane.draw(served.run, cond, 0, settings, torch.arange(1))
    packed = packed_bytes(served.run)
    assert packed > 0 and served.bytes == served.weights + packed
    library.release(served)
    library.close()


def test_an_answer_has_the_notes_and_the_warnings_of_its_work() -> None:
    with noted() as notes:
        events.note("one", "a")
        events.warning("two")
        events.progress("three")
    events.note("four", "b")
    assert notes == ["one", "two"]
