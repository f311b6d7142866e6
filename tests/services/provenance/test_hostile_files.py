"""Files that are large, or made to waste time and memory or to reach the network, are answered soon and offline."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import c2pa
import cbor2
import numpy as np
import pytest

from afresh.core import UserError
from afresh.core.results import SIDECAR
from afresh.services.provenance import library
from afresh.services.provenance.certificates import MOST_CERTIFICATES, chain_of
from afresh.services.provenance.containers import MOST_BYTES, ContainerError, manifest_in
from afresh.services.provenance.cose import CoseError, signer_of
from afresh.services.provenance.embed import _library_signer
from afresh.services.provenance.jumbf import MOST_MANIFESTS, JumbfError, store_in
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.signer import signer
from afresh.services.provenance.work import Ingredient, definition
from tests.services.provenance.conftest import FORMATS, content_of, facts

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
        b"ID3\x03\0\0\0\0\x01\x20" + b"GEOB\0\0\0\x11\0\0\0application/c2pa" + bytes(200),
        b"\xff\xd8\xff\xeb\0\0" + bytes(100),
        b"\xff\xd8" + b"\xff\xeb\0\x20JP\x02\x11\0\0\0\x07\0\0\0\x99jumb\0\0\0\0c2pa\0\0" * 9,
        b"\xff\xd8" + b"\xff\xeb\0\x02" * 300_000,
    ],
    ids=[
        "many",
        "huge",
        "many RIFF",
        "huge RIFF",
        "long ID3",
        "GEOB",
        "no end",
        "no length",
        "out of order",
        "many segments",
    ],
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


class Counted(bytes):
    """Bytes that count how often they are asked for a part or a sum, and the bytes that are copied then."""

    work = 0

    def _count(self, out: Any) -> Any:
        Counted.work += 1 + (len(out) if isinstance(out, bytes) else 0)
        return Counted(out) if isinstance(out, bytes) else out

    def __getitem__(self, place: Any) -> Any:
        return self._count(super().__getitem__(place))

    def __add__(self, other: Any) -> Any:
        return self._count(super().__add__(other))

    def find(self, *given: Any) -> int:
        return int(self._count(super().find(*given)))

    def partition(self, end: Any) -> Any:
        return tuple(map(self._count, super().partition(end)))


class CountedFile(io.BytesIO):
    def read(self, count: int | None = -1, /) -> bytes:
        content = super().read(count)
        Counted.work += 1 + len(content)
        return Counted(content)


def jpeg_of(count: int, size: int = 20) -> bytes:
    """A JPEG whose manifest is in so many segments."""
    out = [b"\xff\xd8"]
    for number in range(1, count + 1):
        head = b"JP\2\x11" + struct.pack(">II", number, 99) + b"jumb"
        body = head + (struct.pack(">I", 50) + b"jumdc2pa" if number == 1 else b"") + b"x" * size
        out.append(b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body)
    return b"".join(out) + b"\xff\xd9"


def id3_of(frames: bytes) -> bytes:
    size = bytes(len(frames) >> place & 127 for place in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frames


def geob_of(encoding: bytes, words: bytes) -> bytes:
    content = encoding + b"application/c2pa\0" + words
    return b"GEOB" + struct.pack(">I", len(content)) + b"\0\0" + content


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def described(letters: bytes, label: bytes, inner: bytes) -> bytes:
    """A box with a description, and what is in it."""
    description = letters + bytes.fromhex("00110010800000aa00389b71") + b"\3" + label + b"\0"
    return box(b"jumb", box(b"jumd", description) + inner)


def boxes_of(count: int) -> bytes:
    """A manifest with so many boxes, each of which is in eight others."""
    inner = box(b"free", b"") * count
    for depth in reversed(range(8)):
        inner = described((b"c2pa", b"c2ma", b"c2as")[min(depth, 2)], b"c2pa.assertions" if depth else b"c2pa", inner)
    return inner


@pytest.mark.parametrize(
    "made",
    [
        jpeg_of,
        lambda n: b"\x89PNG\r\n\x1a\n" + chunks(b"tEXt", n, "png"),
        lambda n: b"RIFF\xff\xff\xff\xffWAVE" + chunks(b"junk", n, "riff"),
        lambda n: id3_of(b"PRIV\0\0\0\0\0\0" * n),
        lambda n: id3_of(geob_of(b"\0", b"x" * 10 * n)),
        lambda n: id3_of(geob_of(b"\1", b"x\0\0x" * 10 * n)),
    ],
    ids=["jpeg", "png", "riff", "frames", "description", "two bytes a letter"],
)
def test_a_container_is_walked_in_one_pass(made: Callable[[int], bytes]) -> None:
    """Four times as many parts are four times as much work, and at most ten times the bytes of the file."""
    work = []
    for count in (4_000, 16_000):
        Counted.work, content = 0, made(count)
        with contextlib.suppress(ContainerError):
            manifest_in(CountedFile(content))
        work.append(Counted.work)
    assert work[1] <= 4.1 * work[0] and work[1] < 10 * len(content)


def test_boxes_are_walked_in_one_pass() -> None:
    work = []
    for count in (1_000, 4_000):
        Counted.work = 0
        store_in(Counted(boxes_of(count)))
        work.append(Counted.work)
    assert work[1] <= 4.1 * work[0]


def test_a_jpeg_is_read_up_to_the_bytes_that_a_manifest_may_have(tmp_path: Path) -> None:
    file = CountedFile(jpeg_of(2 * MOST_BYTES // 65_000, 65_000))
    Counted.work = 0
    with pytest.raises(ContainerError, match="more than 33,554,432 bytes"):
        manifest_in(file)
    assert Counted.work < 3 * MOST_BYTES
    path = sparse(tmp_path / "a.jpg", b"\xff\xd8\xff\xeb\0\1" + b"x" * 100, 1 << 40)
    assert read(path).status is Status.NOTHING  # a length of less than its own two bytes


def manifest_with(signature: bytes, count: int = 1) -> bytes:
    """A store of so many manifests with this signature."""
    claimed = described(b"c2cl", b"c2pa.claim", box(b"cbor", b"\xa0"))
    signed = claimed + described(b"c2cs", b"c2pa.signature", box(b"cbor", signature))
    return described(b"c2pa", b"c2pa", b"".join(described(b"c2ma", b"urn:%d" % i, signed) for i in range(count)))


LONG = b"\xc2\x5a" + struct.pack(">I", 200_000) + b"\xf7" * 200_000  # a number of 1,600,000 bits


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"\xc4\x82\x01" + LONG, "does not know"),  # decimal
        (b"\xc5\x82\x1a\x7f\xff\xff\xff\x01", "does not know"),  # a power of 2
        (b"\xd8\x1e\x82" + LONG + LONG, "more than 262,144 bytes"),  # rational
        (b"\xd8\x23\x68(a+)+(b)", "does not know"),  # a regular expression
        (b"\x81" * 200_000, "cannot be decoded"),
        (b"\x9f" * 200_000, "cannot be decoded"),
        (b"\x5b\0\0\x7f\0\0\0\0\0", "cannot be decoded"),
    ],
    ids=["decimal", "power", "rational", "expression", "deep", "endless", "long"],
)
def test_a_signature_makes_no_work_before_it_is_checked(
    part: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    decoder = cbor2.CBORDecoder

    def counted(stream: io.BytesIO) -> cbor2.CBORDecoder:
        computed.append(stream)
        return decoder(stream)

    monkeypatch.setattr(cbor2, "CBORDecoder", counted)
    with pytest.raises(CoseError, match=reason):
        signer_of(store_in(manifest_with(b"\xd2\x84" + part)).boxes[0])
    assert not computed or "cannot be decoded" in reason, "refused before it was computed"


def test_a_store_of_thousands_of_manifests_is_refused() -> None:
    assert len(store_in(manifest_with(b"", MOST_MANIFESTS)).boxes) == MOST_MANIFESTS
    with pytest.raises(JumbfError, match="more than 256 manifests"):
        store_in(manifest_with(b"", MOST_MANIFESTS + 1))


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
    with c2pa.Builder.from_json(definition(facts(), "image/png"), context=library.signing(None)) as builder:
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


@pytest.mark.parametrize("length", range(4))
def test_a_chunk_of_riff_ends_at_an_even_place(length: int) -> None:
    """A byte of padding follows a chunk of odd length, which does not count it."""
    note = b"note" + length.to_bytes(4, "little") + b"x" * length + bytes(length % 2)
    content = b"WAVE" + note + b"C2PA" + (6).to_bytes(4, "little") + b"claims"
    stream = io.BytesIO(b"RIFF" + len(content).to_bytes(4, "little") + content)
    assert manifest_in(stream) == ("audio/wav", b"claims")


@pytest.mark.parametrize("chain", [[], [b""] * (MOST_CERTIFICATES + 1), "one", None])
def test_a_signature_has_certificates_and_not_too_many(chain: Any) -> None:
    with pytest.raises(ValueError, match="no certificate, or too many"):
        chain_of(chain)
