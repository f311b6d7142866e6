"""What is fetched arrives whole or not at all, goes on where it ended, and comes from where it may."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

from afresh.core import UserError
from afresh.services.bundles import download
from afresh.services.bundles.download import Wanted, addresses_of, content_of, fetched, is_local
from tests.services.bundles.conftest import full_disk
from tests.services.bundles.server import Site, serving

CONTENT = bytes(range(256)) * 1_000


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("AFRESH_CACHE_FOLDER", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving() as made:
        made.files["/a"] = CONTENT
        yield made


def get(site: Site, path: str = "/a", local: bool = True, **known: object) -> bytes:
    return content_of(Wanted(site.url + path, local, **known))  # type: ignore[arg-type]


def rest(tmp_path: Path) -> list[str]:
    return [p.name for p in (tmp_path / "cache" / "fetched").glob("*")]


def test_a_file_arrives_and_nothing_is_left(site: Site, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert get(site) == CONTENT and get(site, "/a?token=1", sha256=digest, size=len(CONTENT)) == CONTENT
    assert rest(tmp_path) == []


def test_a_fetch_goes_on_where_it_ended(site: Site) -> None:
    site.cut["/a"] = [1_000, 5_000, 0]
    assert get(site) == CONTENT
    assert [r for _, r in site.asked] == ["", "bytes=1000-", "bytes=6000-", "bytes=6000-"]


def test_a_later_command_goes_on_with_a_new_link(site: Site, tmp_path: Path) -> None:
    site.cut["/a"] = [100] * 4
    with pytest.raises(UserError, match="the same command goes on"):
        get(site, "/a?token=old")
    assert len(rest(tmp_path)) == 2
    assert get(site, "/a?token=new") == CONTENT and site.asked[-1] == ("/a?token=new", "bytes=400-")
    assert rest(tmp_path) == []


def test_a_file_that_has_changed_begins_anew(site: Site) -> None:
    site.cut["/a"] = [100] * 4
    with pytest.raises(UserError, match="the same command goes on"):
        get(site)
    site.files["/a"] = b"other" * 100
    assert get(site) == b"other" * 100


def test_a_server_without_parts_or_names_of_states_begins_anew(site: Site) -> None:
    site.ranges, site.cut["/a"] = False, [100]
    assert get(site) == CONTENT
    site.headers["/b"], site.files["/b"], site.cut["/b"] = {"ETag": ""}, CONTENT, [100]
    assert get(site, "/b") == CONTENT and site.asked[-1] == ("/b", "")


def test_what_was_fetched_is_used_again_after_an_error_that_is_not_its_own(site: Site, tmp_path: Path) -> None:
    for code, kept in (("unknown_signer", True), ("bundle_damaged", False)):
        with pytest.raises(UserError, match="said"), fetched(Wanted(f"{site.url}/a", True)):
            raise UserError("said", code)
        assert bool(rest(tmp_path)) is kept
        site.asked.clear()
        assert get(site) == CONTENT
        assert site.asked == [("/a", f"bytes={len(CONTENT)}-" if kept else "")]


def test_busy_servers_are_asked_again_and_others_are_not(site: Site, tmp_path: Path) -> None:
    site.statuses["/a"] = [503, 429, 500]
    assert get(site) == CONTENT
    site.statuses["/a"] = [503] * 9
    with pytest.raises(UserError, match="the server answered 503"):
        get(site)
    for status in (403, 404, 410):
        site.asked.clear()
        site.statuses["/a"] = [status]
        with pytest.raises(UserError, match=f"answered {status}.*may have expired") as error:
            get(site, "/a?secret=1")
        assert "secret" not in str(error.value) and len(site.asked) == 1
    assert rest(tmp_path) == []


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"most": 1_000}, "more than the 1,000 bytes"),
        ({"size": 10}, "has not the 10 bytes"),
        ({"size": 300_000}, "has not the 300,000 bytes"),
        ({"sha256": "0" * 64}, "SHA-256 is not the one"),
    ],
)
def test_bounds_hold_with_and_without_a_stated_length(
    site: Site, tmp_path: Path, known: dict[str, object], why: str
) -> None:
    with pytest.raises(UserError, match=why):
        get(site, **known)
    site.headers["/a"] = {"Content-Length": "", "Connection": "close"}
    with pytest.raises(UserError, match=why):
        get(site, **known)
    assert rest(tmp_path) == []


def test_an_answer_that_is_compressed_is_refused(site: Site) -> None:
    site.headers["/a"] = {"Content-Encoding": "gzip"}
    with pytest.raises(UserError, match="compresses it"):
        get(site)


HEAD = b"HTTP/1.1 200 OK\r\n"
TRICKLED = {
    "head": HEAD + b"x: ",
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: /",
    "body": HEAD + b"content-length: 99999\r\n\r\n",
    "piece": HEAD + b"transfer-encoding: chunked\r\n\r\n5;",
}


@pytest.mark.parametrize("answer", TRICKLED.values(), ids=TRICKLED)
def test_an_answer_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, site: Site, answer: bytes
) -> None:
    """However steadily its bytes arrive: the server goes on until the client has left."""
    monkeypatch.setattr(download, "HEAD", 0.3)
    monkeypatch.setattr(download, "WINDOW", 0.3)
    monkeypatch.setattr(download, "TRIES", 2)
    came = list[object]()

    def trickle() -> None:
        for _ in range(2):
            with listening.accept()[0] as sock, contextlib.suppress(OSError):
                sock.sendall(answer)
                came.append(sock.getpeername())
                while not select([sock], [], [], 0.02)[0] or sock.recv(65536):
                    sock.sendall(b"y")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle)
        thread.start()
        where = f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        with pytest.raises(UserError, match="sends too slowly") as error:
            content_of(Wanted(where, True))
        thread.join(30)
    assert error.value.code == "connection" and len(came) == 2 and not thread.is_alive()


def test_redirects_are_followed_and_bounded(site: Site) -> None:
    site.redirects |= {"/r": "/s", "/s": f"{site.url}/a", "/loop": "/loop"}
    assert get(site, "/r") == CONTENT
    with pytest.raises(UserError, match="redirects more than 5 times"):
        get(site, "/loop")
    for target in ("ftp://127.0.0.1/a", "file:///etc/passwd", "http://user:word@127.0.0.1/a", "http://93.184.215.14/a"):
        site.redirects["/t"] = target
        with pytest.raises(UserError, match="cannot be fetched"):
            get(site, "/t")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://127.0.0.1/a", "is on this machine, and what led to it is not"),
        ("http://localhost/a", "is on this machine, and what led to it is not"),
        ("https://[::1]/a", "is on this machine"),
        ("https://[::ffff:127.0.0.1]/a", "is on this machine"),
        ("http://93.184.215.14/a", "http is not encrypted"),
        ("https://10.0.0.1/a", "no public address"),
        ("https://169.254.169.254/latest", "no public address"),
        ("https://0.0.0.0/a", "no public address"),
    ],
)
def test_addresses_that_are_not_for_the_network_are_refused(url: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        asyncio.run(addresses_of(url, local=False))


def test_which_addresses_are_of_this_machine() -> None:
    assert all(is_local(u) for u in ("http://localhost:8/a", "http://127.0.0.1/", "http://[::1]:80/"))
    assert not any(is_local(u) for u in ("http://localhost.example/", "https://10.0.0.1/", "https://example.org/"))
    with pytest.raises(UserError, match="cannot be fetched"):
        is_local("https://user:secret@example.org/a")


def test_a_full_disk_and_another_process_are_said(site: Site, tmp_path: Path) -> None:
    with full_disk(100_000), pytest.raises(UserError, match="cannot be written"):
        get(site)
    with fetched(Wanted(f"{site.url}/a", True)), pytest.raises(UserError, match="Another process"):
        get(site)
