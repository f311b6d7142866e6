"""Folders of mixed files: archives and tables are read in their place, and what is damaged ends nothing."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

from tests.data.test_tar import archive, zstd
from tests.services.collect.sources.finding import find


def test_tables_are_read_first_and_archives_and_compressed_files_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A")
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(archive({"x.txt": b"B"})))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as made:
        made.writestr("y.txt", "C")
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"D"))
    (tmp_path / "e.txt.zst").write_bytes(zstd(b"E"))
    (tmp_path / "f.csv").write_text("text,label\nF,one\n")
    found, left = find(tmp_path)
    assert [(f.where, f.name) for f in found] == [
        ("f.csv, row 1", ""),
        ("a.txt", "a.txt"),
        ("b.tar.gz: x.txt", "x.txt"),
        ("c.zip: y.txt", "y.txt"),
        ("d.txt.gz", "d.txt"),
        ("e.txt.zst", "e.txt"),
    ]
    assert [f.content for f in found] == ["F", b"A", b"B", b"C", b"D", b"E"] and not left


def test_what_is_damaged_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK no")
    (tmp_path / "b.tar").write_bytes(b"no archive")
    (tmp_path / "c.txt.zst").write_bytes(b"no zstd")
    (tmp_path / "d.csv").write_text("one,two\nfirst,second\n")
    (tmp_path / "e.txt").write_text("E")
    with zipfile.ZipFile(tmp_path / "f.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros.txt", bytes(100 << 20))
    found, left = find(tmp_path)
    assert [f.content for f in found] == [b"E"]
    assert set(left) == {"a.zip", "b.tar", "c.txt.zst", "d.csv", "f.zip: zeros.txt"}
    assert "Give the table as a source of its own" in left["d.csv"] and "bomb" in left["f.zip: zeros.txt"]
