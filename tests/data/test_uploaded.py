"""Data that arrives file by file: how much one sender may have here."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from afresh.core import UserError
from afresh.data import uploaded
from afresh.data.imported import data_folder, written_data
from afresh.data.uploaded import MOST_ARRIVING, Arrivals, kept_bytes


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "data"))


def send(arrivals: Arrivals, owner: str, content: bytes, most: int | None = None) -> Path:
    arriving = arrivals.of(arrivals.begin(owner, most), owner)
    arrivals.add(arriving, "file.txt", 0, content)
    return arrivals.finish(arriving)


def test_one_name_keeps_so_many_bytes_in_all() -> None:
    arrivals = Arrivals()
    send(arrivals, "ann", b"a" * 60, most=100)
    with pytest.raises(UserError, match="afresh rm --data NAME") as error:
        send(arrivals, "ann", b"b" * 50, most=100)
    assert error.value.code == "too_much_data" and kept_bytes("ann") == 60
    send(arrivals, "ann", b"c" * 30, most=100)
    send(arrivals, "ann", b"c" * 30, most=100_000)  # the same data again is kept once
    assert kept_bytes("ann") == 90 and kept_bytes("bob") == 0
    send(arrivals, "bob", b"b" * 100, most=100)
    with pytest.raises(UserError, match="may keep"):
        arrivals.begin("bob", 100)
    send(arrivals, "bob", b"d" * 500)  # without a limit


def test_what_arrives_at_once_counts_together() -> None:
    arrivals = Arrivals()
    first, second = (arrivals.of(arrivals.begin("ann", 100), "ann") for _ in range(2))
    arrivals.add(first, "file", 0, b"a" * 70)
    with pytest.raises(UserError, match="may keep"):
        arrivals.add(second, "file", 0, b"b" * 40)
    arrivals.add(second, "file", 0, b"b" * 30)


def test_what_was_removed_no_longer_counts() -> None:
    arrivals = Arrivals()
    send(arrivals, "ann", b"a" * 60, most=100)
    (kept,) = written_data()
    shutil.rmtree(kept.path)
    assert kept_bytes("ann") == 0
    send(arrivals, "ann", b"b" * 60, most=100)


@pytest.mark.parametrize("owner", ["", "..", "a/b", "-", "of "])
def test_names_of_senders_lead_nowhere_else(owner: str) -> None:
    send(Arrivals(), owner, b"a" * 60)
    assert kept_bytes(owner) == 60 and kept_bytes("another") == 0
    assert len(written_data()) == 1
    assert {p.name for p in data_folder().parent.iterdir()} == {"data"}


def test_few_arrive_at_once_and_one_that_was_given_up_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(uploaded, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    arrivals = Arrivals()
    begun = [arrivals.of(arrivals.begin("ann"), "ann") for _ in range(MOST_ARRIVING)]
    with pytest.raises(UserError, match="Wait until one is complete"):
        arrivals.begin("ann")
    arrivals.begin("bob")
    now[0] = 200.0
    arrivals.add(begun[0], "file", 0, b"a")
    arrivals.begin("ann")
    assert [a.folder.exists() for a in begun] == [True, False, False, False]
    with pytest.raises(UserError, match="not expected any more"):
        arrivals.of(begun[1].id, "ann")
