"""What a parser does not survive refuses that item, with its reason, and never ends a collection."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from afresh.services.collect import process, sources
from afresh.services.collect.gather import CollectLimits as Stop
from afresh.services.collect.gather import SourcePlace, gather, place_of
from afresh.services.collect.record import Found, Record, Rejection
from afresh.services.collect.rules import Rule
from afresh.services.collect.sources import Options, Source, repository

GOOD = "A good text stands beside what is odd, and it is collected whatever happens to the other."


def collected(into: Path, *places: SourcePlace | str, **options: Any) -> tuple[list[str], dict[str, str]]:
    """The texts of a data set, and the reasons for what was left out by where it was."""
    gather(
        [p if isinstance(p, SourcePlace) else place_of(p) for p in places], into, assembly={"near": "keep"}, **options
    )
    refused = {r["where"]: r["reason"] for r in pq.read_table(into / "rejected.parquet").to_pylist()}
    return [r["text"] for r in pq.read_table(into / "items.parquet").to_pylist()], refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "good.txt").write_text(GOOD)
    return made


@pytest.mark.parametrize(
    "content",
    [
        b"From: " + b"(" * 20_000 + b"\nSubject: x\n\nhello there\n",
        b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(2_000)) + b"\nx\n",
        b"Content-Type: message/rfc822\n\n" * 20_000 + b"Subject: x\n\nhello there\n",
        b'From: "' + b"'a' " * 8_000 + b"\n\nhello there\n",
    ],
    ids=["brackets", "nested parts", "nested messages", "quotes"],
)
def test_mail(folder: Path, tmp_path: Path, content: bytes) -> None:
    (folder / "odd.eml").write_bytes(content)
    texts, refused = collected(tmp_path / "set", str(folder))
    assert texts == [GOOD] and refused["odd.eml"]


def test_times_and_names_of_files(folder: Path, tmp_path: Path) -> None:
    named = folder / os.fsdecode(b"name\xff.txt")
    for file, when in ((folder / "late.txt", 1 << 40), (folder / "early.txt", -(1 << 37)), (named, 0)):
        file.write_text(f"{GOOD} {when}")
        os.utime(file, (0, when))
    texts, refused = collected(tmp_path / "set", str(folder))
    assert len(texts) == 4 and not refused


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """What git says; a repository is made by its plumbing, which writes what porcelain would refuse."""
    given = ["git", "-c", "core.fsyncMethod=fsync", *arguments]
    return subprocess.run(given, cwd=folder, input=stdin, capture_output=True, check=True).stdout.decode().strip()


def committed(folder: Path, tree: str, when: str = "1 +0000") -> None:
    """Let a commit of this tree, made at this time, be what is read."""
    who = f"A <a@example.org> {when}"
    commit = f"tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
    made = git(folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=commit)
    (folder / ".git" / "HEAD").write_text(made + "\n")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    made.mkdir()
    git(made, "init", "--quiet")
    return made


def blob(repo: Path, content: str) -> str:
    return git(repo, "hash-object", "-w", "--stdin", stdin=content.encode())


def test_a_commit_of_a_year_that_is_none(repo: Path, tmp_path: Path) -> None:
    committed(repo, git(repo, "mktree", stdin=f"100644 blob {blob(repo, GOOD)}\ta.txt\n".encode()), f"{1 << 58} +0000")
    assert collected(tmp_path / "set", str(repo)) == ([GOOD], {})


def test_contents_that_are_missing_or_damaged(repo: Path, tmp_path: Path) -> None:
    blobs = {name: blob(repo, f"{GOOD} {name}") for name in ("damaged", "good", "missing")}
    committed(
        repo, git(repo, "mktree", stdin="".join(f"100644 blob {b}\t{n}.txt\n" for n, b in blobs.items()).encode())
    )
    for name in ("damaged", "missing"):
        stored = repo / ".git" / "objects" / blobs[name][:2] / blobs[name][2:]
        stored.unlink()
        if name == "damaged":
            stored.write_bytes(b"x\x9c")
    texts, refused = collected(tmp_path / "set", str(repo))
    assert texts == [f"{GOOD} good"] and sorted(refused) == ["damaged.txt", "missing.txt"]


def test_a_tree_of_endless_paths(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten folders of ten folders of ... by ten trees: 10^10 paths, of which as many are listed as may be."""
    monkeypatch.setattr(repository, "MOST_FILES", 5_000)
    tree = git(repo, "mktree", stdin=f"100644 blob {blob(repo, GOOD)}\ta.txt\n".encode())
    for _ in range(10):
        tree = git(repo, "mktree", stdin="".join(f"040000 tree {tree}\t{i}\n" for i in range(10)).encode())
    committed(repo, tree)
    texts, refused = collected(tmp_path / "set", str(repo))
    assert texts == [GOOD] and "more than 5,000 items" in refused["repo"]


def test_a_tree_of_endless_empty_folders(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listed of them is nothing, so that only seconds bound it."""
    monkeypatch.setattr(repository, "LISTING", 1)
    tree = git(repo, "mktree")
    for _ in range(10):
        tree = git(repo, "mktree", stdin="".join(f"040000 tree {tree}\t{i}\n" for i in range(10)).encode())
    good = f"100644 blob {blob(repo, GOOD)}\ta.txt\n040000 tree {tree}\tb\n"
    committed(repo, git(repo, "mktree", stdin=good.encode()))
    _, refused = collected(tmp_path / "set", str(repo))
    assert "cannot be listed in 1 seconds" in refused["repo"]


ERRORS = (RecursionError("too deep"), MemoryError(), OverflowError("too large"), KeyError("items"), AssertionError())


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_a_source_raises_in_its_middle(folder: Path, tmp_path: Path, error: Exception) -> None:
    def find(place: str, options: Options, fetched: Any) -> Iterator[Found | Rejection]:
        yield Found("first", f"{GOOD} first")
        raise error

    odd = SourcePlace(Source("odd", "", lambda place: False, find, lambda *_: []), "odd", Options(), {})
    texts, refused = collected(tmp_path / "set", odd, str(folder))
    assert texts == [f"{GOOD} first", GOOD]
    assert type(error).__name__ in refused["odd"] and "not read further than its first 1 items" in refused["odd"]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_a_rule_or_an_extractor_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def judge(record: Record) -> Record:
        if record.where == "b":
            raise error
        return record

    def extract(source: str, found: Found) -> Iterator[Record]:
        yield Record("text", source, found.where, text=GOOD)
        raise error

    monkeypatch.setattr(process, "rules", lambda: (Rule("strict", "", ("text",), judge),))
    monkeypatch.setattr(process, "extractors", lambda: {".odd": extract})
    found = [Found("a", f"{GOOD} a"), Found("b", f"{GOOD} b"), Found("c", b"c", "c.odd")]
    made = process.process("odd", found, {"strict": None})
    assert [r.where for r in made.records] == ["a", "c"]
    assert {(r.where, r.stage, r.rule) for r in made.rejections} == {
        ("b", "clean", "strict"),
        ("c", "extract", "format"),
    }


def test_a_print_that_fails_is_of_one_item_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from afresh.services.collect import near

    def prints(records: Any) -> list[bytes]:
        if any(r.where == "b" for r in records):
            raise MemoryError
        return [b"1"] * len(records)

    search = replace(near.searches()["text"], prints=prints)
    monkeypatch.setattr(near, "searches", lambda: {"text": search})
    refused: list[Rejection] = []
    records = near.with_prints([Record("text", "", where, text="x") for where in "abc"], refused)
    assert [r.where for r in records] == ["a", "c"] and [r.where for r in refused] == ["b"]


def test_a_source_has_so_many_items_and_bytes(folder: Path, tmp_path: Path) -> None:
    for i in range(4):
        (folder / f"z{i}.txt").write_text(f"{GOOD} {i}")
    texts, refused = collected(tmp_path / "items", place_of(str(folder), {"max_items": 3}))
    assert len(texts) == 3 and "more than 3 items" in refused[str(folder)]
    whole = place_of(str(folder), {"max_gb": 3 * len(GOOD) / sources.GB})
    digest = gather([whole], tmp_path / "bytes")["digest"]
    assert "MB are made of it" in collected(tmp_path / "bytes", whole)[1][str(folder)]
    gather([whole], tmp_path / "stopped", limits=Stop(items=1))
    assert gather([whole], tmp_path / "stopped", resume=True)["digest"] == digest
