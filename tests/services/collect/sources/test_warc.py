"""Web archives: what servers had answered is found as if it was fetched, and damaged ones as far as they go."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import brotli
import pytest

from afresh.data.collected import rows
from afresh.services.collect.dataset_store import FetchedFiles
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import options_of, source_of
from afresh.services.collect.sources.warc import SOURCE

MB = 1 << 20


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = "".join(f"{h}\r\n" for h in (f"HTTP/1.1 {status}", *(headers or ("Content-Type: text/plain",))))
    return lines.encode() + b"\r\n" + body


def record(address: str, block: bytes, kind: str = "response") -> bytes:
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\nWARC-Date: 2024-01-02T03:04:05Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{len(block)}>\r\nContent-Type: application/http\r\nContent-Length: {len(block)}\r\n"
    )
    return head.encode() + b"\r\n" + block + b"\r\n\r\n"


def find(path: Path, **options: object) -> list[Found | Rejection]:
    return list(SOURCE.find(str(path), options_of(SOURCE, options), FetchedFiles(path.parent)))


RECORDS = (
    record("http://example.org/", b"software: x\r\n", "warcinfo"),
    record("http://example.org/a", b"GET /a HTTP/1.1\r\n\r\n", "request"),
    record("http://example.org/a", http(b"The first.")),
    record("http://example.org/b", http(b"gone", status="404 Not Found")),
    record(
        "http://example.org/c", http(b"No.", "Content-Type: text/plain", "X-Robots-Tag: x: all", "X-Robots-Tag: noai")
    ),
    record("dns:example.org", b"example.org. 300 IN A 192.0.2.1"),
    record(
        "http://example.org/d",
        http(b"4\r\nThe \r\n7\r\nsecond.\r\n0\r\n\r\n", "Content-Type: text/plain", "Transfer-Encoding: chunked"),
    ),
)


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "one.warc.gz"])
def test_the_answers_of_servers_are_found(tmp_path: Path, name: str) -> None:
    packed = {
        "a.warc": b"".join(RECORDS),
        "a.warc.gz": b"".join(map(gzip.compress, RECORDS)),
        "one.warc.gz": gzip.compress(b"".join(RECORDS)),
    }
    (tmp_path / name).write_bytes(packed[name])
    assert source_of(str(tmp_path / name)).name == "warc"
    found = find(tmp_path / name)
    assert [(one.where[-1], one.rule if isinstance(one, Rejection) else one.content) for one in found] == [
        ("a", b"The first."),
        ("b", "status"),
        ("c", "noai"),
        ("d", b"The second."),
    ]
    assert found[0].about.time == "2024-01-02T03:04:05+00:00"  # type: ignore[union-attr]
    assert isinstance(find(tmp_path / name, override="noai")[2], Found)


def test_contents_are_decoded_within_bounds(tmp_path: Path) -> None:
    text, bomb = b"A text. " * 100, b"\0" * (8 * MB)
    compressor = zlib.compressobj(wbits=31)
    blocks = (
        http(gzip.compress(text), "Content-Encoding: gzip"),
        http(brotli.compress(text), "Content-Encoding: br"),
        http(text, "Content-Encoding: gzip", "Transfer-Encoding: chunked"),  # which was undone already
        http(compressor.compress(bomb) + compressor.flush(), "Content-Encoding: gzip"),
        http(brotli.compress(bomb), "Content-Encoding: br"),
        http(bomb),
        http(b"nonsense", "Content-Encoding: br"),
        http(b"nonsense", "Content-Encoding: x-unknown"),
    )
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(gzip.compress(record(f"http://example.org/{i}", b)) for i, b in enumerate(blocks)))
    found = find(path, max_file_mb=1)
    assert [one.rule if isinstance(one, Rejection) else one.content for one in found] == [
        text,
        text,
        text,
        "size",
        "size",
        "size",
        "encoding",
        "encoding",
    ]


def test_a_damaged_archive_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    good, path = record("http://example.org/a", http(b"The first.")), tmp_path / "a.warc"

    def outcome(content: bytes) -> list[str]:
        path.write_bytes(content)
        return [one.rule if isinstance(one, Rejection) else "" for one in find(path)]

    assert outcome(good + good.replace(b"/a", b"/b")[:-8]) == ["", "archive"]
    assert outcome(good + b"WARC/1.1\r\nX: " + b"a" * MB) == ["", "archive"]
    assert outcome(b"no archive " * 100) == ["archive"]
    broken = bytearray(gzip.compress(good))
    broken[40] ^= 0xFF
    assert outcome(bytes(broken)) == ["archive"]


def test_an_archive_becomes_a_data_set(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(map(gzip.compress, RECORDS)))
    made = gather([place_of(str(path))], tmp_path / "set")
    assert made["left_out"] == {"find/status": 1, "find/noai": 1}
    assert [row["text"] for row in rows(tmp_path / "set")] == ["The first.", "The second."]
