"""One process at a time has a run; the next one learns which, and a process that ends in whatever way lets go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.runs.lock import FILE, held, hold, kept


@contextmanager
def process(work: Callable[[], None]) -> Iterator[int]:
    """The number of a child that does the work, says so and waits; it is killed in the end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(write, b"x")
            time.sleep(300)
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_second_process_is_told_which_is_the_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with process(lambda: hold(run, "trained") and None) as child:
        with pytest.raises(UserError, match=rf"run is being trained by process {child} since .*cannot be removed") as e:
            hold(run, "removed")
        assert e.value.code == "run_in_use" and e.value.fields["process"] == child and "\n" not in str(e.value)
    with held(run, "removed"):  # it was killed, and its file is still there
        pass
    assert list(run.iterdir()) == []


def test_within_a_process_it_is_taken_once_and_released_by_whoever_ends(tmp_path: Path) -> None:
    with kept(tmp_path, "trained"):
        pass
    first = hold(tmp_path, "trained")
    assert hold(tmp_path, "trained") is first and (tmp_path / FILE).is_file()
    with held(tmp_path, "trained"):
        pass
    assert not (tmp_path / FILE).exists()
    with process(lambda: hold(tmp_path, "trained") and None), pytest.raises(UserError, match="is being trained by"):
        hold(tmp_path, "trained")
    with pytest.raises(ValueError), kept(tmp_path, "trained"):
        raise ValueError
    assert not (tmp_path / FILE).exists()


def test_a_folder_that_is_renamed_takes_its_lock_along(tmp_path: Path) -> None:
    old, new = tmp_path / "run", tmp_path / "aside"
    with held(old, "replaced"):
        old.rename(new)
        with held(old, "trained"):
            assert (old / FILE).is_file() and (new / FILE).is_file()
        assert not (old / FILE).exists()
    assert (new / FILE).exists(), "the name no longer led to it"
    assert hold(new, "removed").release() is None and not (new / FILE).exists()


def test_never_two_at_once(tmp_path: Path) -> None:
    """Processes that take and release a lock in turn, which removes its file each time."""
    run, inside = tmp_path / "run", tmp_path / "inside"

    def compete() -> None:
        for _ in range(300):
            try:
                with held(run, "trained"):
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another one is inside, too
                    inside.unlink()
            except UserError:
                pass

    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                compete()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_link_in_place_of_the_lock_is_not_written_to(kind: str, tmp_path: Path) -> None:
    run, private = tmp_path / "run", tmp_path / "private"
    run.mkdir()
    private.write_text("mine")
    (run / FILE).symlink_to(private) if kind == "symbolic" else os.link(private, run / FILE)
    with held(run, "removed"):
        pass
    assert private.read_text() == "mine" and (run / FILE).exists()


def test_what_took_the_place_of_the_lock_stays(tmp_path: Path) -> None:
    """Another process may have removed the file of the lock and made its own."""
    lock = hold(tmp_path, "trained")
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).write_text("of another")
    lock.release()
    assert (tmp_path / FILE).read_text() == "of another"
