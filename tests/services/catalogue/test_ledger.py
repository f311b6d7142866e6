"""The ledger is whole or says where it is not, whatever happened to its file and its writers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.services.catalogue.ledger import FIRST, Ledger, check_ledger


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def written(path: Path, count: int = 5) -> Path:
    ledger = Ledger(path)
    for i in range(count):
        ledger.append("noted", number=i, text="é\u2028\n<b>")
    return path


def test_each_line_has_the_hash_of_the_line_before(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl")
    raw = path.read_bytes().splitlines()
    hashes = [FIRST, *(sha256(line).hexdigest() for line in raw)]
    assert [(e["n"], e["before"], e["number"]) for e in lines(path)] == [(i, hashes[i], i) for i in range(5)]
    assert check_ledger(path) == (5, hashes[5], 0)
    assert check_ledger(tmp_path / "none") == (0, FIRST, 0)


@pytest.mark.parametrize("line", range(4))
def test_every_change_of_a_line_but_the_last_is_found(tmp_path: Path, line: int) -> None:
    """A byte changed, a line left out, put in twice, and exchanged with the next one."""
    path = written(tmp_path / "ledger.jsonl")
    raw = path.read_bytes().splitlines(keepends=True)
    changed = raw[line].replace(b'"number": %d' % line, b'"number": 9')
    for bad in (
        [*raw[:line], changed, *raw[line + 1 :]],
        [*raw[:line], *raw[line + 1 :]],
        [*raw[: line + 1], *raw[line:]],
        [*raw[:line], raw[line + 1], raw[line], *raw[line + 2 :]],
    ):
        path.write_bytes(b"".join(bad))
        with pytest.raises(UserError, match=r"was changed: line \d"):
            check_ledger(path)
        with pytest.raises(UserError, match="was changed"):
            Ledger(path).append("noted")
        assert path.read_bytes() == b"".join(bad)  # nothing is appended to what is not whole


def test_a_last_line_that_was_changed_has_another_hash(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl")
    last = check_ledger(path)[1]
    path.write_bytes(path.read_bytes().replace(b'"number": 4', b'"number": 9'))
    assert check_ledger(path)[0] == 5 and check_ledger(path)[1] != last


def test_a_line_that_a_kill_cut_off_is_mended_and_said(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", 3)
    whole = path.read_bytes()
    length = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, length + 1):  # the last line in every state of being written
        path.write_bytes(whole[: len(whole) - cut])
        torn = length - cut
        assert check_ledger(path)[::2] == (2, torn)
        entry = Ledger(path).append("noted", number=7)
        assert entry["n"] == 2 and entry.get("mended", {"bytes": 0})["bytes"] == torn
        assert check_ledger(path)[::2] == (3, 0)
        assert "mended" not in Ledger(path).append("noted")


def test_lines_that_are_gone_are_noticed_by_whoever_has_read_them(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.jsonl", 3)
    ledger = Ledger(path)
    ledger.read()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    with pytest.raises(UserError, match="are gone"):
        ledger.append("noted")


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "ledger.jsonl", 2)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    ledger = Ledger(path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            ledger.append("noted")
    assert path.read_bytes() == before
    assert ledger.append("noted")["n"] == 2 and check_ledger(path)[0] == 3


WRITER = """
import sys
from pathlib import Path
from afresh.services.catalogue.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for i in range(int(sys.argv[2])):
    print(ledger.append("noted", who=sys.argv[3], number=i)["n"], flush=True)
"""


def test_processes_that_append_at_once_and_are_killed_lose_no_line_that_was_told(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    def start(name: str, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(path), str(count), name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    writers = [start("a", 60), start("b", 60), start("killed", 1_000_000)]
    told = []
    for process in writers[:2]:
        told += [int(n) for n in (process.communicate()[0]).split()]
    os.kill(writers[2].pid, signal.SIGKILL)
    told += [int(n) for n in writers[2].communicate()[0].split()]
    assert len(set(told)) == len(told) and len(told) >= 120
    Ledger(path).append("noted", who="after")
    count, _, torn = check_ledger(path)
    assert torn == 0 and count - len(told) in (1, 2)  # "after", and one that was written and not told
    found = lines(path)
    assert [e["number"] for e in found if e["who"] == "a"] == list(range(60))
    assert set(told) <= {e["n"] for e in found}
