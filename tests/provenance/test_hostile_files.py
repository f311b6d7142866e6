"""Files that are large, or made to waste time and memory or to reach the network, are answered soon and offline."""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import c2pa
import numpy as np
import pytest

from afresh.core import UserError
from afresh.provenance import claim, library
from afresh.provenance.embed import _library_signer
from afresh.provenance.formats import SIDECAR
from afresh.provenance.layers import Status
from afresh.provenance.read import read
from afresh.provenance.sign_work import signed_work
from afresh.provenance.signer import signer
from afresh.provenance.work import Ingredient
from tests.provenance.conftest import FORMATS, content_of, facts

GB4 = 4 * 1024**3


def sparse(path: Path, head: bytes, size: int = GB4) -> Path:
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(size)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_of_four_gigabytes_are_not_read_as_a_whole(suffix: str, tmp_path: Path) -> None:
    unsigned = sparse(tmp_path / f"a{suffix}", content_of(suffix)[:600])
    assert read(unsigned).status in (Status.NOTHING, Status.DAMAGED)
    signed = signed_work(b"words", "a.txt", facts())
    assert signed.sidecar is not None
    (tmp_path / f"a{suffix}{SIDECAR}").write_bytes(signed.sidecar)
    assert read(unsigned).status in (Status.CHANGED, Status.DAMAGED), "the size alone is not what was signed"


def test_a_large_jpeg_with_a_manifest_is_not_read_into_memory(tmp_path: Path) -> None:
    signed = sparse(tmp_path / "a.jpg", signed_work(content_of(".jpg"), "a.jpg", facts()).content)
    (layer,) = read(signed).layers
    assert layer.status is Status.DAMAGED and "read up to" in layer.detail


def chunks(kind: bytes, count: int, form: str) -> bytes:
    one = b"\0\0\0\0" + kind + b"\0\0\0\0" if form == "png" else kind + b"\0\0\0\0"
    return one * count


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" + chunks(b"tEXt", 300_000, "png"),
        b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffcaBX" + bytes(100),
        b"RIFF\xff\xff\xff\xffWAVE" + chunks(b"junk", 300_000, "riff"),
        b"RIFF\xff\xff\xff\xffWAVEC2PA\xff\xff\xff\xff",
        b"ID3\x03\0\0\x7f\x7f\x7f\x7f" + bytes(1000),
        b"ID3\x04\0\0\0\0\x07\x76" + b"GEOB\0\0\x01\0\0\0\0application/c2pa\0" + b"x" * 900,
        b"\xff\xd8\xff\xeb\0\0" + bytes(100),
        b"\xff\xd8" + b"\xff\xeb\0\x20JP\x02\x11\0\0\0\x07\0\0\0\x99jumb\0\0\0\0c2pa\0\0" * 9,
        b"\xff\xd8" + b"\xff\xeb\0\x02" * 300_000,
    ],
    ids=["many", "huge", "many RIFF", "huge RIFF", "long ID3", "GEOB", "no length", "out of order", "many segments"],
)
def test_containers_that_are_not_built_as_they_say(content: bytes) -> None:
    assert read(content).status in (Status.NOTHING, Status.DAMAGED)


def test_boxes_within_boxes_and_random_stores_are_damaged() -> None:
    deep = b""
    for _ in range(200):
        description = b"c2pa" + bytes.fromhex("00110010800000aa00389b71") + b"\x03c2pa\0"
        inside = struct.pack(">I", len(description) + 8) + b"jumd" + description + deep
        deep = struct.pack(">I", len(inside) + 8) + b"jumb" + inside
    rng = np.random.default_rng(4)
    signed = signed_work(content_of(".wav"), "a.wav", facts()).content
    start = signed.find(b"jumb") - 4
    for store in (deep, b"", bytes(1000), rng.bytes(5000), signed[start : start + 900]):
        body = b"WAVEC2PA" + struct.pack("<I", len(store)) + store
        finding = read(b"RIFF" + struct.pack("<I", len(body)) + body)
        assert finding.status is Status.DAMAGED


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and what it was asked for."""
    paths: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", paths
        server.shutdown()


def test_nothing_is_fetched_for_a_file_that_names_a_manifest_elsewhere(asked: tuple[str, list[str]]) -> None:
    url, paths = asked
    remote = io.BytesIO()
    with c2pa.Builder.from_json(claim.definition(facts(), "image/png"), context=library.signing(None)) as builder:
        builder.set_no_embed()
        builder.set_remote_url(f"{url}/manifest.c2pa")
        with _library_signer(signer()) as of_library:
            builder.sign(of_library, "image/png", io.BytesIO(content_of(".png")), remote)
    assert url.encode() in remote.getvalue()
    assert read(remote.getvalue()).status is Status.NOTHING
    parent = Ingredient.of("a.png", remote.getvalue())
    edited = signed_work(content_of(".png", 1), "b.png", facts(ingredients=(parent,)))
    assert read(edited.content).status is Status.VALID
    assert paths == []


def test_a_time_stamping_authority_that_does_not_answer_is_named(
    asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, paths = asked
    monkeypatch.setenv("AFRESH_TIMESTAMP_URL", url)
    with pytest.raises(UserError, match=f"{url}.*AFRESH_TIMESTAMP_URL"):
        signed_work(content_of(".png"), "a.png", facts())
    assert paths, "it was asked"
