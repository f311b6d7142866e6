"""Paths, text files and archives: every unusable input is reported with a reason; links and bombs are refused."""

from __future__ import annotations

import gzip
import os
import stat
import zipfile
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.core.memory import available_memory
from afresh.data import files
from afresh.data.files import (
    MB,
    DataFile,
    FileError,
    ZipLimits,
    check_memory,
    decode_text,
    matching_pattern,
    read_bytes,
    read_zip,
    walk,
    zip_names,
)
from tests import needs


def put(path: Path, content: bytes = b"text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_are_sorted_and_every_other_entry_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("b.txt", "a/z.TXT", "a/y.txt", ".hidden", ".git/config", "__MACOSX/b.txt", "skip/c.txt"):
        put(root / name)
    put(root / "empty.txt", b"")
    outside = put(tmp_path / "secret.txt")
    (root / "out.txt").symlink_to(outside)
    (root / "outdir").symlink_to(tmp_path)
    (root / "in.txt").symlink_to(root / "b.txt")
    (root / "nowhere.txt").symlink_to(root / "gone")
    os.mkfifo(root / "pipe")
    found, refused = walk(root, lambda name, folder: "not wanted" if folder and name == "skip" else None)
    assert [f.name for f in found] == ["a/y.txt", "a/z.TXT", "b.txt"]
    assert found[1].suffix == ".txt"
    assert found[0].size == 4
    reasons = {r.source: r.reason for r in refused}
    assert set(reasons) == {
        *(".hidden", ".git/", "__MACOSX/", "skip/", "empty.txt"),
        *("out.txt", "outdir", "in.txt", "nowhere.txt", "pipe"),
    }
    assert reasons["skip/"] == "not wanted"
    assert "0 bytes" in reasons["empty.txt"]
    assert "out of the folder" in reasons["out.txt"]
    assert "out of the folder" in reasons["outdir"]
    assert "within the folder" in reasons["in.txt"]
    assert "broken symbolic link" in reasons["nowhere.txt"]
    assert "regular" in reasons["pipe"]


def test_one_file_and_a_linked_root_are_read(tmp_path: Path) -> None:
    file = put(tmp_path / "real" / "a.txt")
    assert walk(file) == ([DataFile(file, "a.txt", 4)], [])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [f.name for f in walk(tmp_path / "link")[0]] == ["a.txt"]


def test_circular_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "d" / "a.txt")
    (tmp_path / "d" / "again").symlink_to(tmp_path / "d")
    found, refused = walk(tmp_path / "d")
    assert [f.name for f in found] == ["a.txt"]
    assert len(refused) == 1


def test_links_in_a_circle_and_pipes_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "d" / "a.txt")
    (tmp_path / "d" / "one").symlink_to(tmp_path / "d" / "two")
    (tmp_path / "d" / "two").symlink_to(tmp_path / "d" / "one")
    assert [(r.source, r.reason) for r in walk(tmp_path / "d")[1]] == [
        ("one", "broken symbolic link"),
        ("two", "broken symbolic link"),
    ]
    with pytest.raises(UserError, match="broken symbolic link"):
        walk(tmp_path / "d" / "one")
    os.mkfifo(tmp_path / "x.zip")
    for act in (walk, read_zip):
        with pytest.raises(UserError, match="neither a file nor a folder but a device, pipe or socket"):
            act(tmp_path / "x.zip")
    assert zip_names(tmp_path / "x.zip") == []


def test_missing_empty_and_broken_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        walk(tmp_path / "missing")
    with pytest.raises(UserError, match="is empty"):
        walk(tmp_path)
    with pytest.raises(UserError, match="0 bytes"):
        walk(put(tmp_path / "empty.txt", b""))
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="broken symbolic link"):
        walk(tmp_path / "broken")


def test_unreadable_files_are_reported() -> None:
    with needs.folder_of_a_user() as folder:
        put(folder / "a.txt").chmod(0)
        put(folder / "b.txt")
        with needs.without_privileges():
            assert [r.reason for r in walk(folder)[1]] == ["cannot be read: permission denied"]


def test_names_that_are_not_utf8_can_be_printed(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb") as f:  # noqa: PTH123
        f.write(b"x")
    (found,), _ = walk(tmp_path)
    assert found.name.encode("utf-8")
    assert read_bytes(found, 1) == b"x"


def test_utf8_is_decoded_without_changes() -> None:
    assert decode_text("a\r\nb\rc\né😀".encode()) == "a\r\nb\rc\né😀"
    assert decode_text(b"\xef\xbb\xbfhello") == "hello"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"ok\nline \xe9 two", r"invalid UTF-8 at byte 8 \(line 2, 0xe9\)"),
        (b"\xef\xbb\xbfab\xff", r"invalid UTF-8 at byte 5 \(line 1, 0xff\)"),
        (b"cut \xe2\x82", "invalid UTF-8 at byte 4"),
        (b"surrogate \xed\xa0\x80", "invalid UTF-8 at byte 10"),
        ("x".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\0\0", "binary: a zero byte at byte 4"),
    ],
)
def test_content_that_is_not_text_is_refused_with_its_position(raw: bytes, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        decode_text(raw)


def test_sizes_are_bounded_before_and_while_reading(tmp_path: Path) -> None:
    sparse = tmp_path / "line.txt"
    with sparse.open("wb") as f:
        f.truncate(1 << 30)  # 1 GB, no line end, no memory needed to refuse it
    (found,), _ = walk(sparse)
    with pytest.raises(FileError, match=r"1,024 MB, but at most 512 MB.*max_file_mb"):
        read_bytes(found, 512)
    bomb = put(tmp_path / "bomb.txt.gz", gzip.compress(bytes(3 * MB)))
    (found,), _ = walk(bomb)
    assert found.size < 10_000
    with pytest.raises(FileError, match=r"more than 2 MB when decompressed.*max_file_mb"):
        read_bytes(found, 2)
    assert len(read_bytes(found, 3)) == 3 * MB


def test_damaged_gz_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"words and more words " * 100)
    for content in (whole[:-12], b"not gzip at all", whole[:20] + b"\xff" * 10 + whole[30:]):
        (found,), _ = walk(put(tmp_path / "a.txt.gz", content))
        with pytest.raises(FileError, match=r"damaged \.gz"):
            read_bytes(found, 1)


def test_patterns_match_names_folders_and_paths() -> None:
    assert matching_pattern("a/tests/b.py", ["tests"]) == "tests"
    assert matching_pattern("tests/b.py", ["tests/"]) == "tests/"
    assert matching_pattern("src/b_test.py", ["*_test.py"]) == "*_test.py"
    assert matching_pattern("src/b.py", ["src/*.py"]) == "src/*.py"
    assert matching_pattern("src/b.py", ["b", "*.txt"]) is None


# --------------------------------------------------------------------------- archives


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(name, content)
    return path


def test_members_are_sorted_and_unsafe_names_are_refused(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.zip",
        {
            "b.txt": b"2",
            "a/c.txt": b"1",
            "../evil.txt": b"x",
            "/etc/evil.txt": b"x",
            "a\\..\\..\\evil.txt": b"x",
            "C:/evil.txt": b"x",
            "pic.png": b"x",
            "empty.txt": b"",
            "__MACOSX/b.txt": b"x",
            ".hidden.txt": b"x",
            "folder/": b"",
        },
    )
    with zipfile.ZipFile(path, "a") as z:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(link, "/etc/passwd")
    before = sorted(p.name for p in tmp_path.iterdir())
    members, refused = read_zip(path, {".txt"})
    assert list(members) == [("a/c.txt", b"1"), ("b.txt", b"2")]
    reasons = {r.source.removeprefix("a.zip: "): r.reason for r in refused}
    for name in ("../evil.txt", "/etc/evil.txt", "C:/evil.txt"):
        assert "leads out" in reasons[name]
    assert sum("leads out" in r for r in reasons.values()) == 4
    assert reasons["link.txt"] == "symbolic link"
    assert "unsupported file type" in reasons["pic.png"]
    assert "0 bytes" in reasons["empty.txt"]
    assert len(refused) == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert "b.txt" in zip_names(path)


def test_bombs_are_refused_by_ratio_size_and_number(tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.zip", {"zeros.txt": bytes(4 * MB), "fine.txt": b"fine"})
    members, refused = read_zip(path)
    assert [name for name, _ in members] == ["fine.txt"]
    assert "a decompression bomb" in refused[0].reason
    many = archive(tmp_path / "many.zip", {f"{i}.txt": os.urandom(1000) for i in range(10)})
    with pytest.raises(UserError, match="at most 9 are read"):
        read_zip(many, limits=ZipLimits(members=9))
    with pytest.raises(UserError, match="would unpack"):
        read_zip(many, limits=ZipLimits(total_bytes=9_999))
    members, refused = read_zip(many, limits=ZipLimits(member_bytes=999))
    assert list(members) == []
    assert len(refused) == 10


def test_a_bomb_of_many_small_members_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(40):
            archive.writestr(f"{i}.txt", b"\0" * 100_000)
    limits = ZipLimits(total_from=MB)
    with pytest.raises(UserError, match=r"unpack to [\d,]+ times its size .*decompression bomb"):
        read_zip(tmp_path / "a.zip", limits=limits)
    assert len(list(read_zip(tmp_path / "a.zip")[0])) == 40  # 4 MB do no harm


def test_what_needs_more_memory_than_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory(1 << 50 if available_memory() is None else 1)
    monkeypatch.setattr(files, "available_memory", lambda: 5e6)
    check_memory(5e6)
    with pytest.raises(FileError, match="needs about 10 MB of memory, and 5 MB are free"):
        check_memory(1e7)
    monkeypatch.setattr(files, "available_memory", lambda: None)
    check_memory(1e18)


def test_damaged_members_are_refused_and_the_others_read(tmp_path: Path) -> None:
    good, bad = os.urandom(3000), os.urandom(3000)
    path = archive(tmp_path / "a.zip", {"a.txt": bad, "b.txt": good})
    raw = bytearray(path.read_bytes())
    place = raw.index(bad[100:120])  # random bytes are stored as they are
    raw[place] ^= 1
    path.write_bytes(bytes(raw))
    members, refused = read_zip(path)
    assert list(members) == [("b.txt", good)]
    assert "damaged" in refused[0].reason


def test_files_that_are_not_archives_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.zip", b"PK nothing")
    with pytest.raises(UserError, match=r"not a \.zip archive"):
        read_zip(path)
    assert zip_names(path) == []
