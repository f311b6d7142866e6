"""Votes survive: a crash after them, a crash amid them, others who vote at the same time."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.engine.alignment.feedback.preferences import Pair, Vote, read_votes, scan
from afresh.engine.alignment.feedback.votes import append, line_of, repair, unjudged

VOTES = [Vote("x", "y", "a", rater="r"), Vote("u", "ünï\n\u2028", "tie", prompt="p"), Vote("é", "w", "b", reason="so")]


def child(work: Callable[[], None]) -> int:
    """Do something in another process, which ends at once afterwards, without any clearing up."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except UserError:
            os._exit(2)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def written(path: Path, *votes: Vote) -> bytes:
    for v in votes:
        append(path, v)
    return path.read_bytes()


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    written(path, *VOTES)
    found = read_votes(path)
    assert list(found.votes) == VOTES and not found.summary.damaged


def test_a_vote_survives_the_end_of_its_process(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    assert status(child(lambda: append(path, VOTES[0]))) == 0
    assert list(read_votes(path).votes) == VOTES[:1]


def test_a_vote_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "v.jsonl", []
    real = os.fsync

    def spy(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    append(path, VOTES[0])
    append(path, VOTES[1])
    assert (path.stat().st_ino, path.stat().st_size) in synced
    assert tmp_path.stat().st_ino in [node for node, _ in synced]  # the new file's name


# --------------------------------------------------------------------------- torn lines


def test_a_line_torn_anywhere_costs_nothing_else(tmp_path: Path) -> None:
    path, before, torn = tmp_path / "v.jsonl", line_of(VOTES[0]), line_of(VOTES[1])
    for length in range(len(torn) - 1):
        path.write_bytes(before + torn[:length])
        append(path, VOTES[2])
        assert path.read_bytes() == before + line_of(VOTES[2]), length


def test_a_whole_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(line_of(VOTES[0]) + line_of(VOTES[1])[:-1])
    assert repair(path) == b""
    assert path.read_bytes() == line_of(VOTES[0]) + line_of(VOTES[1])


@pytest.mark.parametrize("tail", [b'{"a": "x", "b', b"{", b"\0" * 300, b'{"a": "x"' + b"\0" * 9])
@pytest.mark.parametrize("lines", [0, 1])
def test_repair_says_what_it_cut_off(tmp_path: Path, tail: bytes, lines: int) -> None:
    path, before = tmp_path / "v.jsonl", line_of(VOTES[0]) * lines
    path.write_bytes(before + tail)
    assert repair(path) == tail
    assert path.read_bytes() == before
    assert repair(path) == b""


def test_a_torn_line_longer_than_a_block(tmp_path: Path) -> None:
    path, long = tmp_path / "v.jsonl", line_of(Vote("x" * 200_000, "y", "a"))
    path.write_bytes(line_of(VOTES[0]) + long[:-5])
    assert repair(path) == long[:-5]
    assert list(read_votes(path).votes) == VOTES[:1]


def test_damaged_lines_before_the_last_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(line_of(VOTES[0]) + b'{"a": \n')
    assert written(path, VOTES[2]) == line_of(VOTES[0]) + b'{"a": \n' + line_of(VOTES[2])


# --------------------------------------------------------------------------- many writers


@pytest.mark.parametrize("torn", [b"", b'{"a": "ha'])
def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "v.jsonl"
    path.write_bytes(torn)
    long = "z" * 5000  # more than one page

    def work(k: int) -> Callable[[], None]:
        return lambda: [append(path, Vote(f"{k}/{i}", long, "a", rater=str(k))) for i in range(20)] and None

    assert [status(pid) for pid in [child(work(k)) for k in range(4)]] == [0] * 4
    found = read_votes(path)
    assert not found.summary.damaged
    assert sorted(v.a for v in found.votes) == sorted(f"{k}/{i}" for k in range(4) for i in range(20))
    for k in range(4):  # each writer's votes in its order
        assert [v.a for v in found.votes if v.rater == str(k)] == [f"{k}/{i}" for i in range(20)]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    before = written(path, VOTES[0])

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, len(before) + 10))
        append(path, VOTES[1])

    assert status(child(work)) == 2
    assert path.read_bytes() == before


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("vote", "why"),
    [
        (Vote("x", "x", "a"), "with itself"),
        (Vote("x", "y", "c"), "winner is 'c'"),  # type: ignore[arg-type]
        (Vote("x\ud800", "y", "a"), "surrogate"),
        (Vote("x", 3, "a"), "b is int"),  # type: ignore[arg-type]
        (Vote("x" * (1 << 24), "y", "a"), "the limit is"),
    ],
)
def test_a_vote_that_would_not_count_is_refused(tmp_path: Path, vote: Vote, why: str) -> None:
    with pytest.raises(UserError, match=why):
        append(tmp_path / "v.jsonl", vote)
    assert not (tmp_path / "v.jsonl").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"a,b,winner\nx,y,a\n",
        b"prose",
        b'{\n "a": 1\n}',
        b'{"model": "x"}',
        b'{"a": "x", "b": "y", "winner": "a"}\nprose',
        b"\0" * 100 + b"\n\0\0\0",
        b"{" + b"x" * (17 << 20),
    ],
)
def test_another_file_is_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    says = "no field 'model'" if b"model" in content else "not a file of votes"
    with pytest.raises(UserError, match=says):
        append(path, VOTES[0])
    assert path.read_bytes() == content


def test_no_place_to_write(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "v.jsonl"):
        with pytest.raises(UserError, match="Cannot write votes"):
            append(path, VOTES[0])


# --------------------------------------------------------------------------- going on


def test_what_a_rater_has_not_judged_yet() -> None:
    pairs = [Pair.of("x", "y"), Pair.of("u", "v"), Pair.of("x", "y", "p"), Pair.of("u", "v"), Pair.of("s", "t")]
    votes = [Vote("y", "x", "tie", rater="r"), Vote("u", "v", "a", rater="other"), Vote("t", "s", "a", rater="r")]
    assert unjudged(votes, pairs, "r") == [Pair.of("u", "v"), Pair.of("x", "y", "p")]
    assert unjudged(votes, pairs, "new") == [*pairs[:3], pairs[4]]


def test_resuming(tmp_path: Path) -> None:
    path, pairs = tmp_path / "v.jsonl", [Pair.of("0.png", f"{i}.png") for i in (1, 2, 3)]
    assert repair(path) == b"" and not path.exists()
    append(path, Vote("1.png", "0.png", "a", rater="r"))
    append(path, Vote("2.png", "0.png", "a", rater="s"))
    with path.open("ab") as f:
        f.write(line_of(Vote("3.png", "0.png", "a", rater="r"))[:-4])
    assert repair(path) and unjudged(scan(path).votes, pairs, "r") == pairs[1:]
