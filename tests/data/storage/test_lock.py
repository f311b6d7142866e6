"""One process at a time has a file; it goes with whatever ends the process, also a child that inherited it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.data.storage.lock import is_file_at, is_locked, open_locked


def test_a_second_one_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    first = open_locked(tmp_path / "lock")
    assert is_locked(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        open_locked(tmp_path / "lock")
    os.close(first)
    assert not is_locked(tmp_path / "lock") and not is_locked(tmp_path / "none")
    os.close(open_locked(tmp_path / "lock"))


def test_a_child_holds_what_it_inherited(tmp_path: Path) -> None:
    lock = open_locked(tmp_path / "lock")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    assert is_locked(tmp_path / "lock")
    child.communicate(b"\n")
    assert not is_locked(tmp_path / "lock")


def test_a_file_that_was_replaced_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = open_locked(path)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(first)
        os.write(write, b"x")
        handle = open_locked(path, wait=True)  # as it was, until this one is let go; then the new one
        os._exit(0 if is_file_at(path, handle) else 1)
    os.read(read, 1)
    path.with_name("new").write_text("new")
    os.replace(path.with_name("new"), path)
    assert not is_file_at(path, first)
    os.close(first)
    assert os.waitpid(child, 0)[1] == 0
