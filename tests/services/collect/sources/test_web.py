"""Pages of the web: what is found, in which order, what is never asked for twice, and how servers may misbehave."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from afresh.core import UserError, events
from afresh.data.collected import rows
from afresh.services.collect.fetching import fetcher, host_queues, listings
from afresh.services.collect.fetching.html_metadata import PageHead
from afresh.services.collect.forget import ForgetRequest, forget
from afresh.services.collect.gather import CollectLimits, gather, place_of
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.rules import rules as cleaning
from afresh.services.collect.sources import Unavailable, options_of
from afresh.services.collect.sources.web import SOURCE
from tests.ports import free_port

from ..conftest import Finder
from ..site import Handler, Site, send

MB = 1 << 20


def rules(found: list[Found | Rejection]) -> list[str]:
    """The rule of each rejection, and "" for what was found."""
    return [one.rule if isinstance(one, Rejection) else "" for one in found]


def test_a_page_is_found_with_what_is_known_of_it(site: Site, finding: Finder) -> None:
    site.html("/a", "hello", Last_Modified="Tue, 02 Jan 2024 03:04:05 GMT", Content_Usage="train-ai=y")
    (page,) = finding(site.url("/a#part"))
    assert isinstance(page, Found)
    assert page.where == site.url("/a") and page.media_type == "text/html; charset=utf-8" and b"hello" in page.content
    assert page.about.time == "2024-01-02T03:04:05+00:00"
    assert page.about.preferences == "Content-Usage: train-ai=y (header)"
    assert [path for path, _, _ in site.asked] == ["/robots.txt", "/.well-known/tdmrep.json", "/a"]
    assert {headers["User-Agent"] for _, headers, _ in site.asked} == {"afresh/0.1.0 (+me@example.org)"}


def test_who_gives_no_contact_is_told_to(site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFRESH_CONTACT")
    said: list[events.Event] = []
    with events.listening(said.append):
        finding(site.url())
        finding(site.url(), contact="https://example.org/me")
    assert [event.code for event in said] == ["no_contact"]
    assert site.asked[0][1]["User-Agent"] == "afresh/0.1.0"
    with pytest.raises(UserError, match="without spaces"):
        finding(site.url(), contact="me (at) example.org")


def test_addresses_that_are_none_are_listed(site: Site, finding: Finder) -> None:
    site.put("/a", "text")
    found = finding(
        "# a comment", "", "ftp://example.org/a", "http://me:secret@example.org/", site.url("/a"), "http://"
    )
    assert rules(found) == ["address", "address", "", "address"]
    with pytest.raises(UserError, match="Give a file with an address on each line"):
        list(SOURCE.find("addresses:nowhere.txt", options_of(SOURCE, {}), None))  # type: ignore[arg-type]


def test_the_order_is_that_of_the_addresses_although_hosts_are_asked_side_by_side(site: Site, finding: Finder) -> None:
    both = threading.Barrier(2, timeout=5)

    def meet(handler: Handler) -> None:
        both.wait()
        send(handler, 200, {"Content-Type": "text/plain", "Content-Length": "1"}, b"x")

    site.pages["/meet"] = meet
    site.put("/b", "b")
    addresses = [site.url("/meet"), site.url("/b"), site.url("/meet", "localhost"), site.url("/b", "localhost")]
    assert [one.where for one in finding(*addresses)] == addresses
    assert site.most == 2


def test_a_host_is_asked_one_thing_at_a_time_with_a_pause(site: Site, finding: Finder) -> None:
    site.put("/robots.txt", "User-agent: *\nCrawl-delay: 0.05")
    for i in range(3):
        site.put(f"/{i}", str(i))
    finding(*(site.url(f"/{i}") for i in range(3)), delay=0.02)
    times = site.times()
    assert site.most == 1
    assert times[1] - times[0] >= 0.02 and all(b - a >= 0.05 for a, b in zip(times[2:], times[3:], strict=False))


def test_what_was_fetched_or_refused_is_never_asked_for_again(site: Site, finding: Finder) -> None:
    site.put("/a", "a")
    first = finding(site.url("/a"), site.url("/missing"))
    asked = len(site.asked)
    assert finding(site.url("/a"), site.url("/missing")) == first
    assert len(site.asked) == asked and rules(first) == ["", "status"]


def test_an_interrupted_collection_goes_on_and_ends_as_if_it_was_not(site: Site, tmp_path: Path) -> None:
    for i in range(6):
        site.put(f"/{i}", f"The text of page {i}.")
    (tmp_path / "list").write_text("\n".join(site.url(f"/{i}") for i in range(6)))
    place = place_of(f"addresses:{tmp_path / 'list'}", {"delay": 0})
    whole = gather([place], tmp_path / "whole")
    gather([place], tmp_path / "set", limits=CollectLimits(items=2))
    (lines,) = (tmp_path / "set").glob("work/*/fetched.jsonl")
    kept = {json.loads(line)["address"].removeprefix("afresh:") for line in lines.read_text().splitlines()}
    before = len(site.asked)
    assert gather([], tmp_path / "set", resume=True)["digest"] == whole["digest"]
    assert len(kept) >= 4 and not kept & {site.url(path) for path, _, _ in site.asked[before:]}


def test_a_source_is_refreshed_by_asking_what_changed(site: Site, tmp_path: Path) -> None:
    def page(handler: Handler) -> None:
        if handler.headers.get("If-None-Match") == '"1"':
            send(handler, 304, {})
        else:
            send(handler, 200, {"Content-Type": "text/plain", "Content-Length": "9", "ETag": '"1"'}, b"Unchanged")

    site.pages["/same"] = page
    site.put("/new", "One text.", Last_Modified="Tue, 02 Jan 2024 03:04:05 GMT")
    (tmp_path / "list").write_text(site.url("/same") + "\n" + site.url("/new"))
    place = place_of(f"addresses:{tmp_path / 'list'}", {"delay": 0})
    gather([place], tmp_path / "set")
    site.put("/new", "Another text.")
    asked = len(site.asked)
    gather([place], tmp_path / "set")
    assert len(site.asked) == asked
    gather([], tmp_path / "set", refresh=True)
    assert [row["text"] for row in rows(tmp_path / "set")] == ["Unchanged", "Another text."]
    sent = {path: headers for path, headers, _ in site.asked[asked:]}
    assert sent["/same"]["If-None-Match"] == '"1"'
    assert sent["/new"]["If-Modified-Since"] == "Tue, 02 Jan 2024 03:04:05 GMT"


def test_asking_in_another_manner_fetches_nothing_again(site: Site, tmp_path: Path) -> None:
    for path, headers in (("/yes", {}), ("/no", {"X_Robots_Tag": "noai"})):
        site.put(path, f"The text of {path}.", **headers)
    (tmp_path / "list").write_text(site.url("/yes") + "\n" + site.url("/no"))

    def collected(**options: object) -> tuple[list[str], list[str]]:
        before = len(site.paths())
        made = gather([place_of(f"addresses:{tmp_path / 'list'}", {"delay": 0, **options})], tmp_path / "set")
        assert len(made["sources"]) == 1
        return [row["text"] for row in rows(tmp_path / "set")], site.paths()[before:]

    assert collected() == (["The text of /yes."], ["/yes", "/no"])
    assert collected(retries=1, hosts=2) == (["The text of /yes."], [])
    assert collected(override="noai") == (["The text of /yes.", "The text of /no."], ["/no"])
    assert collected() == (["The text of /yes."], [])


def raw(dataset: Path) -> str:
    """Everything that was fetched and is kept."""
    return "".join(path.read_text() for path in sorted(dataset.glob("work/*/raw/*")))


def test_what_was_forgotten_is_not_fetched_again_or_kept(site: Site, tmp_path: Path) -> None:
    author = "<meta name='author' content='Ymir Dotter'>"
    pages = {"/a": "", "/b": author, "/c": ""}
    for path, head in pages.items():
        site.html(
            path, f"<article><p>The long story that is told on page {path[1:] * 9}, to its end.</p></article>", head
        )
    (tmp_path / "list").write_text("\n".join(site.url(path) for path in pages))
    place = place_of(f"addresses:{tmp_path / 'list'}", {"delay": 0})
    off = [rule.name for rule in cleaning() if rule.default]
    gather([place], tmp_path / "set", off=off)
    assert "bbbb" in raw(tmp_path / "set")
    forget(tmp_path / "set", ForgetRequest(person="Ymir Dotter"))
    asked = len(site.paths())
    gather([], tmp_path / "set", on=["line_ends"])
    assert site.paths()[asked:] == [] and "bbbb" not in raw(tmp_path / "set")

    site.html("/c", "<article><p>The long story that is told on page dddddddd, to its end.</p></article>", author)
    gather([], tmp_path / "set", refresh=True)  # what is new of the person is fetched once, and not kept
    assert site.paths()[asked:] == ["/a", "/c"] and "dddd" not in raw(tmp_path / "set")
    assert "aaaa" in raw(tmp_path / "set") and len(list(rows(tmp_path / "set"))) == 1
    gather([], tmp_path / "set", refresh=True)
    assert site.paths()[asked:] == ["/a", "/c", "/a"]


# robots.txt


def test_robots_txt_is_obeyed(site: Site, finding: Finder) -> None:
    site.put("/robots.txt", "User-agent: *\nAllow: /\n\nUser-agent: Afresh\nDisallow: /no\nAllow: /no/but\n")
    for path in ("/no", "/no/but", "/yes"):
        site.put(path, "text")
    assert rules(finding(site.url("/no"), site.url("/no/but"), site.url("/yes"))) == ["robots.txt", "", ""]
    assert site.paths() == ["/no/but", "/yes"]


@pytest.mark.parametrize("status", [500, 503, 429, 507])
def test_nothing_is_taken_while_robots_txt_cannot_be_read(site: Site, finding: Finder, status: int) -> None:
    site.put("/robots.txt", status=status)
    site.put("/a", "a")
    assert rules(finding(site.url("/a"), retries=1)) == ["robots.txt"]
    assert site.paths() == []


@pytest.mark.parametrize("status", [401, 404, 410])
def test_a_site_without_robots_txt_may_be_read(site: Site, finding: Finder, status: int) -> None:
    site.put("/robots.txt", "Disallow: /", status=status)
    site.put("/a", "a")
    assert rules(finding(site.url("/a"))) == [""]


def test_robots_txt_may_be_elsewhere_and_long(site: Site, finding: Finder) -> None:
    site.redirect("/robots.txt", "/rules")
    site.put("/rules", "User-agent: *\nDisallow: /a\n" + "# nothing\n" * 100_000 + "Disallow: /b\n")
    site.put("/a", "a")
    site.put("/b", "b")
    assert rules(finding(site.url("/a"), site.url("/b"))) == ["robots.txt", ""]


def test_a_host_that_asks_for_long_pauses_is_left_alone(site: Site, finding: Finder) -> None:
    site.put("/robots.txt", "User-agent: *\nCrawl-delay: 1000000")
    assert rules(finding(site.url("/a"), site.url("/b"))) == ["robots.txt"] * 2
    assert site.paths() == []


# Failures


def test_failures_that_may_pass_are_tried_again(site: Site, finding: Finder) -> None:
    answers = iter([503, 500])

    def page(handler: Handler) -> None:
        status = next(answers, 200)
        send(handler, status, {"Content-Type": "text/plain", "Content-Length": "2", "Retry-After": "0"}, b"ok")

    site.pages["/a"] = page
    assert rules(finding(site.url("/a"))) == [""]
    site.put("/b", status=503)
    site.put("/c", status=404)
    before = len(site.asked)
    assert rules(finding(site.url("/b"), site.url("/c"), retries=1)) == ["status"] * 2
    assert [path for path, _, _ in site.asked[before:]] == ["/b", "/b", "/c"]


def test_retry_after_is_waited_for_within_reason(site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(host_queues, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    site.put("/soon", status=429, Retry_After="7")
    site.put("/later", status=503, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")
    site.put("/nonsense", status=503, Retry_After="in a while")
    found = finding(site.url("/soon"), site.url("/later"), site.url("/nonsense"), retries=1)
    assert rules(found) == ["status"] * 3
    assert slept and all(6 < s <= 7 for s in slept)
    assert isinstance(found[1], Rejection) and "more than the option max_wait" in found[1].reason


def test_a_host_that_cannot_be_reached_is_given_up(finding: Finder, site: Site) -> None:
    port = free_port()
    found = finding(*(f"http://127.0.0.1:{port}/{i}" for i in range(5)), retries=0)
    assert rules(found) == ["connection"] * 5

    def hang_up(handler: Handler) -> None:
        handler.close_connection = True

    site.pages = {f"/{i}": hang_up for i in range(5)}
    assert rules(finding(*map(site.url, site.pages), retries=0)) == ["connection"] * 3 + ["host"] * 2
    assert site.paths() == ["/0", "/1", "/2"]


def test_without_a_network_the_collection_waits_to_be_resumed(
    finding: Finder, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*arguments: object, **named: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(Unavailable, match="name resolution"):
        finding("http://example.org/", retries=0)


# Redirects, and the addresses of the network


def test_redirects_are_followed_and_each_is_checked(site: Site, finding: Finder) -> None:
    site.put("/robots.txt", "User-agent: *\nDisallow: /secret")
    site.put("/end", "end")
    site.redirect("/start", "/middle")
    site.redirect("/middle", site.url("/end", "localhost"))
    site.redirect("/circle", "/circle")
    site.redirect("/forbidden", "/secret")
    site.redirect("/file", "file:///etc/passwd")
    site.redirect("/private", "http://10.0.0.1/")
    site.redirect("/metadata", "http://169.254.169.254/latest/meta-data")
    for i in range(7):
        site.redirect(f"/far{i}", f"/far{i + 1}")
    paths = ("/start", "/circle", "/forbidden", "/file", "/private", "/metadata", "/far0")
    found = finding(*map(site.url, paths))
    assert rules(found) == [
        "",
        "redirect",
        "robots.txt",
        "address",
        "private_address",
        "private_address",
        "redirect",
    ]
    assert found[0].about.extra == {"address": site.url("/end", "localhost")}  # type: ignore[union-attr]


def test_private_addresses_are_refused_unless_their_network_is_allowed(
    site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/a", "a")
    monkeypatch.delenv("AFRESH_PRIVATE_NETWORKS")
    written = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0")
    port = site.server.server_address[1]
    found = finding(*(f"http://{host}:{port}/a" for host in written))
    assert set(rules(found)) <= {"private_address", "address"} and len(found) == len(written)
    assert site.asked == []
    monkeypatch.setenv("AFRESH_PRIVATE_NETWORKS", "nowhere")
    with pytest.raises(UserError, match="Give networks as"):
        finding(site.url("/a"))


def test_a_name_that_changes_its_address_is_not_followed_there(
    site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the connection goes to the address that was checked, with the name in Host and in TLS."""
    site.put("/a", "a")
    asked: list[str] = []
    sent: list[httpx.Request] = []
    real, handle = socket.getaddrinfo, httpx.AsyncHTTPTransport.handle_async_request

    def lookup(host: str, *arguments: object, **named: object) -> object:
        if host != "rebinding.example":
            return real(host, *arguments, **named)  # type: ignore[arg-type]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "10.0.0.1", 0))]

    async def record(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return await handle(self, request)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", record)
    assert rules(finding(site.url("/a", "rebinding.example"), site.url("/b", "rebinding.example"))) == ["", "status"]
    assert len(asked) == 1
    assert {request.url.host for request in sent} == {"127.0.0.1"}
    assert {request.extensions["sni_hostname"] for request in sent} == {"rebinding.example"}
    assert {headers["Host"].partition(":")[0] for _, headers, _ in site.asked} == {"rebinding.example"}


# Contents without bounds


def test_large_pages_are_refused_before_they_are_read(site: Site, finding: Finder) -> None:
    sent = []

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(1_000):
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent.append(65536)

    site.pages["/endless"] = endless
    site.put("/large", b"x" * (2 * MB))
    assert rules(finding(site.url("/large"), site.url("/endless"), max_file_mb=0.5)) == ["size"] * 2
    assert sum(sent) < 32 * MB


def test_bombs_are_refused_while_they_are_decompressed(site: Site, finding: Finder) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    raw = b"".join(bomb.compress(b"\0" * MB) for _ in range(20)) + bomb.flush()
    site.put("/gzip", raw, Content_Encoding="gzip")
    site.put("/deflate", zlib.compress(b"\0" * (8 * MB)), Content_Encoding="deflate")
    site.put("/brotli", b"\x1b", Content_Encoding="br")  # which was not asked for
    site.put("/twice", gzip.compress(gzip.compress(b"text")), Content_Encoding="gzip, gzip")
    site.put("/cut", gzip.compress(b"text" * 1_000)[:-20], Content_Encoding="gzip")
    site.put("/lies", b"text", Content_Encoding="gzip")
    paths = ("/gzip", "/deflate", "/brotli", "/twice", "/cut", "/lies")
    assert rules(finding(*map(site.url, paths), max_file_mb=1)) == ["size"] * 2 + ["encoding"] * 4


def test_what_is_compressed_is_read(site: Site, finding: Finder) -> None:
    text = b"A text. " * 100
    raw = zlib.compressobj(wbits=-15)
    site.put("/gzip", gzip.compress(text[:400]) + gzip.compress(text[400:]), Content_Encoding="gzip")
    site.put("/zlib", zlib.compress(text), Content_Encoding="deflate")
    site.put("/raw", raw.compress(text) + raw.flush(), Content_Encoding="deflate")
    found = finding(*map(site.url, ("/gzip", "/zlib", "/raw")))
    assert [one.content for one in found] == [text] * 3  # type: ignore[union-attr]


def test_servers_that_misbehave_cost_their_own_page_alone(site: Site, finding: Finder) -> None:
    def said(raw: bytes) -> None:
        def answer(handler: Handler) -> None:
            handler.wfile.write(raw)
            handler.close_connection = True

        site.pages[f"/{len(site.pages)}"] = answer

    said(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort")
    said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nshort")
    said(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
    said(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)
    said(b"\x16\x03\x01 nonsense")
    said(b"")
    said(b"HTTP/1.1 302 Found\r\nLocation: http://[::bad/\r\nContent-Length: 0\r\n\r\n")
    paths = list(site.pages)
    site.put("/good", "good")
    lanes_given_up = [one for path in paths for one in finding(site.url(path), retries=0)]
    assert set(rules(lanes_given_up)) <= {"connection", "address"} and len(lanes_given_up) == 7
    assert rules(finding(site.url("/good"))) == [""]


def test_a_slow_server_is_not_waited_for(site: Site, finding: Finder) -> None:
    stop = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not stop.wait(0.02):
            handler.wfile.write(b"x")

    site.pages["/slow"] = drip
    site.put("/quick", "quick")
    try:  # the page goes on until both answers are there
        assert rules(finding(site.url("/slow"), max_seconds=0.2)) == ["time"]
        assert rules(finding(site.url("/quick"))) == [""]
    finally:
        stop.set()


def test_what_a_content_is_counts_more_than_what_is_said(site: Site, finding: Finder) -> None:
    site.put("/picture", "<!DOCTYPE html><p>text", "image/png")
    site.put("/binary", b"\x00\x01\x02" * 100, "text/html")
    site.put("/shown.html", "<html> is an element", "text/plain")
    site.put("/paper", b"%PDF-1.7 \0", "text/html")
    site.put("/index.php", "<p>text", "text/html")
    site.put("/code.py", "print(1)", "text/plain")
    site.put("/latin", "café".encode("latin-1"), "text/plain; charset=iso-8859-1")
    paths = ("/picture", "/binary", "/shown.html", "/paper", "/index.php", "/code.py", "/latin")
    found = finding(*map(site.url, paths))
    assert rules(found) == ["", "content_type", "", "", "", "", ""]
    pages = [one for one in found if isinstance(one, Found)]
    assert [p.media_type.partition(";")[0] for p in pages] == [
        "text/html",
        "text/plain",
        "application/pdf",
        "text/html",
        "text/plain",
        "text/plain",
    ]
    assert pages[3].name == "" and pages[4].name == "code.py" and pages[5].content == "café".encode()


def test_headers_that_are_not_ascii_are_kept(site: Site, finding: Finder) -> None:
    def page(handler: Handler) -> None:
        lines = (
            "HTTP/1.1 200 OK",
            "Content-Type: text/plain; name=é",
            "Content-Length: 2",
            "Content-Usage: é=y",
            "",
            "ok",
        )
        handler.wfile.write("\r\n".join(lines).encode())

    site.pages["/a"] = page
    (found,) = finding(site.url("/a"))
    assert isinstance(found, Found) and found.about.preferences == "Content-Usage: é=y (header)"
    assert finding(site.url("/a")) == [found]


def test_a_clock_that_jumps_delays_nothing(site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    site.put("/a", "a")
    site.put("/b", "b")
    finding(site.url("/a"))
    monkeypatch.setattr(fetcher.time, "time", lambda: 0.0)
    assert rules(finding(site.url("/a"), site.url("/b"), delay=0.01)) == ["", ""]
    assert [path for path, _, _ in site.asked].count("/robots.txt") == 2  # one from the future is not trusted
    assert site.paths() == ["/a", "/b"]


def test_a_full_disk_stops_the_collection_and_loses_nothing(
    site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/a", "a")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserError, match=r"Make room"):
            finding(site.url("/a"))
    assert rules(finding(site.url("/a"))) == [""]


# Lists and links

URLSET = '<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{}</urlset>'
INDEX = '<?xml version="1.0"?><!-- x --><sitemapindex>{}</sitemapindex>'


def entries(site: Site, element: str, *paths: str) -> str:
    return "".join(f"<{element}><loc>\n{site.url(p)}</loc></{element}>" for p in paths)


def test_sitemaps_and_their_indexes_stand_for_what_they_list(site: Site, finding: Finder) -> None:
    for i in range(5):
        site.put(f"/{i}", str(i))
    first = URLSET.format(entries(site, "url", "/1", "/2"))
    site.put("/first.xml", first, "application/xml", X_Robots_Tag="noindex")
    second = gzip.compress(URLSET.format(entries(site, "url", "/2", "/3")).encode())
    site.put("/second.xml.gz", second, "application/x-gzip")
    site.put("/index.xml", INDEX.format(entries(site, "sitemap", "/first.xml", "/second.xml.gz")), "text/xml")
    found = finding(site.url("/0"), site.url("/index.xml"), site.url("/4"))
    assert [one.where for one in found] == [site.url(f"/{i}") for i in (0, 1, 2, 3, 4)]


def test_bad_lists_are_named_and_what_stands_before_the_mistake_counts(site: Site, finding: Finder) -> None:
    site.put("/1", "1")
    site.put("/cut.xml", URLSET.format(entries(site, "url", "/1"))[:-5], "application/xml")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    site.put("/bomb.xml", URLSET.format("").replace("<urlset", bomb + "<urlset") + "&b;", "application/xml")
    site.put("/odd.rss", "<rss><channel><item><link>http://[</link></item></channel>", "text/xml")
    site.put("/self.xml", INDEX.format(entries(site, "sitemap", "/self.xml")), "application/xml")
    for i in range(6):
        site.put(f"/deep{i}.xml", INDEX.format(entries(site, "sitemap", f"/deep{i + 1}.xml")), "application/xml")
    paths = ("/cut.xml", "/bomb.xml", "/odd.rss", "/self.xml", "/deep0.xml")
    found = finding(*map(site.url, paths))
    assert rules(found) == ["list", "", "list", "list", "nested"]
    assert "after 1 addresses" in str(found[0]) and "entities" in str(found[2])


def test_feeds_stand_for_their_entries(site: Site, finding: Finder) -> None:
    for i in range(4):
        site.put(f"/{i}", str(i))
    rss = "<rss version='2.0'><channel><title>t</title>{}</channel></rss>"
    site.put("/rss", rss.format(f"<item><link>{site.url('/0')}</link></item><item><link>/1</link></item>"), "text/xml")
    atom = "<feed xmlns='http://www.w3.org/2005/Atom'>{}</feed>"
    site.put("/atom", atom.format("<entry><link rel='alternate' href='/2'/></entry><entry><link href='/3'/></entry>"))
    found = finding(site.url("/rss"), site.url("/atom"))
    assert [one.where for one in found] == [site.url(f"/{i}") for i in range(4)]


def test_links_are_followed_within_the_host_when_that_is_wanted(site: Site, finding: Finder) -> None:
    away = site.url("/away", "localhost")
    site.html("/", f"<a href='a'>a</a><a href='{away}'></a><a href='/b#x'></a><a href='mailto:x@y.org'></a>")
    site.html("/a", "<a href='deep'>deep</a><a rel='nofollow' href='hidden'></a>")
    site.html("/b", "<a href='closed'></a>", "<meta name='robots' content='nofollow'>")
    site.html("/deep", "<a href='deeper'></a>")
    for path in ("/deeper", "/hidden", "/closed", "/away"):
        site.html(path)
    assert [one.where for one in finding(site.url())] == [site.url()]
    expected = [site.url(p) for p in ("/", "/a", "/b", "/deep")]
    assert [one.where for one in finding(site.url(), follow=2)] == expected


def test_pages_without_end_are_bounded(site: Site, finding: Finder) -> None:
    class Calendar(dict):  # type: ignore[type-arg]
        def get(self, path: str, default: object = None) -> object:
            if not path.startswith("/day"):
                return default
            number = int(path[4:])
            body = f"<html><a href='/day{number + 1}'></a><a href='/day{number + 2}'></a>".encode()
            return lambda h: send(h, 200, {"Content-Type": "text/html", "Content-Length": str(len(body))}, body)

    site.pages = Calendar()
    found = finding(site.url("/day0"), follow=20, max_pages=6)
    assert len(found) == 8 and rules(found)[-1] == "max_pages"


def test_what_would_be_fetched_is_said_without_fetching(site: Site, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("https://example.org/1\n# no\nhttps://example.org/2\n")
    place = place_of(f"addresses:{tmp_path / 'list'}", {"follow": 2, "override": "noai,noindex"})
    lines = place.source.describe(place.place, place.options)
    assert "2 addresses" in lines[0] and "depth of 2" in lines[1] and lines[-1] == "not obeyed: noai, noindex"
    with pytest.raises(UserError, match="override"):
        place_of("https://example.org", {"override": "robots.txt"})


@pytest.mark.slow
def test_what_was_fetched_is_kept_when_the_process_is_killed(site: Site, finding: Finder, tmp_path: Path) -> None:
    for i in range(20):
        site.put(f"/{i}", f"page {i}")
    addresses = [site.url(f"/{i}") for i in range(20)]
    (tmp_path / "addresses.txt").write_text("\n".join(addresses))
    code = (
        "import sys; from pathlib import Path; from afresh.services.collect.sources.web import SOURCE, WebOptions; "
        "from afresh.services.collect.dataset_store import FetchedFiles; "
        f"list(SOURCE.find('addresses:{tmp_path}/addresses.txt', WebOptions(delay=0.02), "
        f"FetchedFiles(Path('{tmp_path}/fetched'))))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        while len(site.paths()) < 8 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    lines = (tmp_path / "fetched" / "fetched.jsonl").read_bytes().split(b"\n")[:-1]  # the last may be cut off
    kept = {json.loads(line)["address"] for line in lines}
    before = len(site.asked)
    assert [one.where for one in finding(*addresses)] == addresses
    again = {site.url(path) for path, _, _ in site.asked[before:]}
    assert not kept & again and 5 <= len(kept) < 20


# --------------------------------------------------------------------------- pages and lists without end


def test_an_element_of_many_attributes_is_no_square_of_time(site: Site, finding: Finder) -> None:
    """A tree of 300,000 attributes takes libxml2 minutes; their stream takes it a fifth of a second."""
    site.html(
        "/odd", f"<p {' '.join(f'a{i}=1' for i in range(300_000))}>odd</p>", '<meta name="robots" content="noai">'
    )
    site.html("/good", "<p>good</p>")
    begun = time.process_time()
    assert rules(finding(site.url("/odd"), site.url("/good"))) == ["noai", ""]
    assert time.process_time() - begun < 20


def test_a_sitemap_lists_more_than_may_be_taken(site: Site, finding: Finder) -> None:
    listed = "".join(f"<url><loc>{site.url(f'/{i}')}</loc></url>" for i in range(50_000))
    site.put("/sitemap.xml", f"<urlset>{listed}</urlset>", "application/xml")
    for i in range(3):
        site.html(f"/{i}", f"<p>page {i}</p>")
    found = finding(site.url("/sitemap.xml"), max_pages=3)
    assert rules(found) == [""] * 3 + ["max_pages"]
    assert "49,997 more addresses" in found[-1].reason
    assert site.paths() == ["/sitemap.xml", "/0", "/1", "/2"]


def test_a_sitemap_of_nothing_but_elements_or_depth(
    site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MOST_ELEMENTS", 1_000)
    site.put("/many.xml", f"<urlset>{'<a/>' * 2_000}</urlset>", "application/xml")
    site.put("/deep.xml", f"<urlset>{'<a>' * 500}", "application/xml")
    many, deep = finding(site.url("/many.xml"), site.url("/deep.xml"))
    assert "more than 1,000 items" in many.reason and "nested more than 100 deep" in deep.reason


def test_a_feed_whose_items_are_no_list(site: Site, finding: Finder) -> None:
    for items in ("5", "null", '{"a": 1}', "[1, null]"):
        site.put("/feed.json", f'{{"version": "https://jsonfeed.org/version/1", "items": {items}}}', "application/json")
        assert len(finding(site.url("/feed.json"))) == 1
    for n, items in enumerate(("<item>" * 3_000, "<item><link/></item>", "<item><link>http://[</link></item>")):
        site.put(f"/feed{n}", f"<rss version='2.0'><channel>{items}", "application/rss+xml")
        assert rules(finding(site.url(f"/feed{n}"))) != [""]


def test_what_a_parser_raises_refuses_one_page(site: Site, finding: Finder, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_head(content: bytes) -> PageHead:
        if b"odd" in content:
            raise RecursionError("too deep")
        return PageHead()

    monkeypatch.setattr(fetcher, "read_head", read_head)
    site.html("/odd", "odd")
    site.html("/good", "good")
    assert rules(finding(site.url("/odd"), site.url("/good"))) == ["answer", ""]
