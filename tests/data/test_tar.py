"""Archives of .tar: what is read of them, and what never is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from afresh.core import Refused
from afresh.data import tar
from afresh.data.files import MB, FileError, ZipLimits
from afresh.data.tar import is_tar, read_tar
from tests.odd_files import header, pax


def archive(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        for info in more:
            made.addfile(info)
    return out.getvalue()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def zstd(raw: bytes) -> bytes:
    return bytes(pa.compress(raw, codec="zstd", asbytes=True))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.zst": zstd,
    "a.tar.bz2": bz2.compress,
    "a.tar.xz": lzma.compress,
}


@pytest.mark.parametrize("name", COMPRESS)
def test_members_are_read_in_their_order(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(COMPRESS[name](archive({"b.txt": b"second", "in/a.txt": b"first"})))
    assert is_tar(name) and list(read_tar(tmp_path / name)) == [("b.txt", b"second"), ("in/a.txt", b"first")]
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:1100] if name == "a.tar" else whole[: len(whole) // 2])
    with pytest.raises(FileError, match="damaged"):
        list(read_tar(tmp_path / name))


def test_what_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    names = ["../up.txt", "/etc/x", "C:/x", ".hidden", "good.txt", "empty.txt"]
    more = [link("l", tarfile.SYMTYPE), link("h", tarfile.LNKTYPE), link("d", tarfile.CHRTYPE)]
    raw = archive({n: b"" if n == "empty.txt" else b"x" for n in names}, *more, link("s", tarfile.GNUTYPE_SPARSE))
    (tmp_path / "a.tar").write_bytes(raw)
    found = list(read_tar(tmp_path / "a.tar"))
    assert [f for f in found if not isinstance(f, Refused)] == [("good.txt", b"x")]
    assert [f.source.split(": ")[1] for f in found if isinstance(f, Refused)] == [
        *(n for n in names if n != "good.txt"),
        *("lhds"),
    ]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.zst"])
def test_bombs_end_early(tmp_path: Path, name: str) -> None:
    bomb = COMPRESS[name](archive({"first.txt": b"x", "zeros.txt": bytes(20 * MB)}))
    (tmp_path / name).write_bytes(bomb)
    few = ZipLimits(ratio=50, total_from=MB)
    found = read_tar(tmp_path / name, few)
    assert next(found) == ("first.txt", b"x"), "what came before is good"
    with pytest.raises(FileError, match="bomb"):
        list(found)
    with pytest.raises(FileError, match="more than 2 MB"):
        list(read_tar(tmp_path / name, ZipLimits(total_bytes=2 * MB)))
    (_, large) = read_tar(tmp_path / name, ZipLimits(member_bytes=MB))
    assert isinstance(large, Refused) and "at most 1 MB" in large.reason


HUGE = {
    "a size of 2^62": header(1 << 62) + b"12345",
    "a skipped size of 2^62": header(1 << 62, name=".hidden") + b"12345",
    "2^62 in pax": pax(b"28 size=4611686018427387904\n") + header(1),
    "a negative size": header(-1024),
    "a negative size in pax": pax(b"14 size=-1536\n") + header(1),
    "a pax header of 2^62": header(1 << 62, tarfile.XHDTYPE),
    "a pax header of digits": pax(b"1" * MB),
    "a name of 1 GB": header(1 << 30, tarfile.GNUTYPE_LONGNAME),
    "pax headers without end": pax(b"6 a=b\n") * 4000,
    "a sparse map that is cut off": header(1, tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29),
}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.zst"])
@pytest.mark.parametrize("case", HUGE)
def test_what_a_header_declares_is_not_believed(tmp_path: Path, case: str, name: str) -> None:
    good = archive({"good.txt": b"x"})[:1024]
    (tmp_path / name).write_bytes(COMPRESS[name](good + HUGE[case]))
    found = read_tar(tmp_path / name)
    assert next(found) == ("good.txt", b"x"), "what came before is good"
    with pytest.raises(FileError):
        list(found)


def test_many_small_members_take_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive({f"{i}.txt": b"" for i in range(100)}))
    monkeypatch.setattr(tar, "SECONDS", -1.0)
    with pytest.raises(FileError, match="seconds"):
        list(read_tar(tmp_path / "a.tar"))


def test_a_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive({"caf\udce9.txt": b"x", ".caf\udce9": b"x"}))
    (name, _), refused = read_tar(tmp_path / "a.tar")
    assert name.encode() == b"caf\\udce9.txt" and isinstance(refused, Refused) and refused.source.encode()
