"""Stretches of files: together all documents, each once and whole, wherever files are divided."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afresh.data.files import FileError, walk
from afresh.data.text import spans
from afresh.data.text.spans import Span, read_span, spans_of

PROSE = frozenset({".txt"})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"SPAN": 100, "WHOLE": 1000, "LONGEST": 5000, "BLOCK": 512}.items():
        monkeypatch.setattr(spans, name, size)


def stretches(folder: Path) -> list[Span]:
    return spans_of(walk(folder)[0], PROSE)


@pytest.mark.parametrize("length", [1, 7, 49, 99, 100, 101, 350])
def test_lines_are_read_once_and_whole(tmp_path: Path, length: int) -> None:
    lines = [(f"{i}" * length)[:length].encode() + b"\n" for i in range(40)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    found = [read_span(s) for s in stretches(tmp_path)]
    assert b"".join(found) == b"".join(lines)
    assert all(f.endswith(b"\n") for f in found if f)


def test_documents_between_separators_are_read_once_and_whole(tmp_path: Path) -> None:
    documents = [f"first line of {i}\n" + "word\n" * (i % 30) for i in range(60)]
    (tmp_path / "a.txt").write_text("<|endoftext|>\n".join(documents))
    found = [read_span(s).decode() for s in stretches(tmp_path)]
    assert len(found) > 10 and "".join(found) == "<|endoftext|>\n".join(documents)
    assert all(f.startswith("first line") for f in found if f)


def test_text_without_line_ends_is_divided_between_words(tmp_path: Path) -> None:
    text = " ".join(f"größe{i}" for i in range(500))
    (tmp_path / "a.txt").write_text(text)
    found = [read_span(s).decode() for s in stretches(tmp_path)]  # no character is divided
    assert len(found) > 5 and "".join(found) == text


def test_groups_of_rows_are_stretches(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [f"text {i}" * 20 for i in range(100)]}), tmp_path / "a.parquet", row_group_size=10
    )
    found = stretches(tmp_path)
    assert [n for s in found for n in s.groups] == list(range(10)) and all(s.size > 0 for s in found)


def test_small_files_of_any_kind_are_read_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "words\n" * 100)
    (tmp_path / "b.txt").write_text("short")
    assert [s.whole for s in stretches(tmp_path)] == [True, True]


@pytest.mark.parametrize(
    "name, content, reason",
    [
        ("a.csv", b"text\n" + b"words\n" * 1000, "read as a whole"),
        ("a.txt", b"\xff\xfe" + b"a\0" * 500, "UTF-16"),
        ("a.parquet", b"PAR1" + b"x" * 500, "its end is missing"),
    ],
)
def test_files_that_cannot_be_divided_are_refused_by_name(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=f"{name}.*{reason}"):
        stretches(tmp_path)


def test_a_file_that_changes_meanwhile_and_an_endless_line_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'"text"\n' * 50)
    found = stretches(tmp_path)
    path.write_bytes(b'"text"\n' * 40)
    with pytest.raises(FileError, match="restore it"):
        read_span(found[1])
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(FileError, match="without a line end"):
        read_span(stretches(tmp_path)[1])
