"""The fuzz itself: it outlives what it tries, lists what is not explained, and follows from its numbers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

import pytest
from tools.fuzz.__main__ import report
from tools.fuzz.mutations import RAW, mutate
from tools.fuzz.supervised import Begun, Tried, supervised


def dies_hangs_and_fails(numbers: Iterable[int]) -> Iterator[Begun | Tried]:
    for number in numbers:
        begun = Begun(number, "toy", "open", f"change {number}")
        yield begun
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            threading.Event().wait()
        if number == 6:
            sys.exit(3)
        yield Tried(begun, number != 7, "works" if number % 2 else "it is refused")


@pytest.mark.slow
def test_what_dies_or_hangs_is_listed_with_its_number_and_the_others_are_tried(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list(supervised(dies_hangs_and_fails, range(1, 10), wait=5, together=4))
    assert [t.begun.number for t in found] == list(range(1, 10))
    failed = {t.begun.number: t.says for t in found if not t.explained}
    assert failed == {
        2: "the process ended: SIGKILL",
        4: "nothing happened for 5 seconds",
        6: "the process ended: exit code 3",
        7: "works",
    }
    assert report(iter(found), float("inf")) == 4
    said = capsys.readouterr().out
    assert "mutations 1 to 9: 5 of 9 explained" in said
    assert said.endswith("".join(f"{n} toy open: change {n}\n" for n in (2, 4, 6, 7)))


def ends_at_once(numbers: Iterable[int]) -> Iterator[Begun | Tried]:
    sys.exit(1)
    yield


def test_a_process_that_cannot_begin_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="exit code 1"):
        list(supervised(ends_at_once, range(3), wait=60))


@pytest.mark.parametrize("content", RAW, ids=lambda content: content[:6])
def test_what_was_changed_before_is_changed_again(content: str, tmp_path: Path) -> None:
    """A document of 20,000 lists within lists, or numbers that are none, is a file like others; and a mutation follows
    from its number."""
    for number in range(20):
        found = []
        for name in ("one", "other"):
            run = tmp_path / name
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir()
            for file in ("run.json", "metrics.jsonl"):
                (run / file).write_text(content, encoding="utf-8")
            found.append((mutate(run, Random(number)), {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}))
        assert found[0] == found[1]
