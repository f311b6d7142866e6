"""Odd sources, each made by a small function: damaged, lying about themselves, or small and without end.

`GROUPS` holds them by kind and name. A maker writes one into a folder and returns its place; `GOOD` stands in it beside
what is odd, where it can, or else in a folder that is collected with it. Run as a program, FOLDER GROUP, it collects
each of a group under limits of memory and of seconds of the processor, and prints a line of JSON for each.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl import Workbook

from afresh.core import UserError
from afresh.data.collected import FORMAT, SCHEMA
from afresh.data.limits import Limits
from afresh.services.collect.gather import SourcePlace, gather, place_of, places_of
from tests.peak import peak_memory
from tests.services.collect.site import LOOPBACK, Site, serving

GOOD = "A good text stands beside what is odd, and it is collected whatever happens to the other."
MEMORY = 2 << 30  # bytes that a process may ask for; what it takes is looked at in the end
SECONDS = 20  # of the processor for one source, which is many times what the slowest takes

Maker = Callable[[Path], str | list[SourcePlace]]


def place_with(name: str, content: bytes | str) -> Maker:
    """A folder of a good text and an odd file."""

    def make(folder: Path) -> str:
        (folder / "good.txt").write_text(GOOD)
        (folder / name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return str(folder)

    return make


def file_of(name: str, content: bytes | str) -> Maker:
    """A file that is a source by itself."""

    def make(folder: Path) -> str:
        (folder / name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        return str(folder / name)

    return make


# --------------------------------------------------------------------------- mails

PAYLOADS = {
    "brackets": b"(" * 300,
    "quotes": b'"' * 8_000,
    "angles": b"<" * 8_000,
    "backslashes": b"\\" * 8_000,
    "bytes": b"\xff\xfe\x00" * 500,
    "commas": b"a," * 4_000,
    "words": b"=?utf-8?b?" * 900,
    "unknown": b"=?no-such?x?AAAA?= " * 200,
    "parameters": b"text/plain; " + b"a*0=b; " * 1_000,
    "colons": b":;" * 3_000,
    "at": b"a@b@c " * 2_000,
    "nothing": b"",
}
HEADERS = (b"From", b"To", b"Subject", b"Date", b"Content-Type", b"Content-Transfer-Encoding", b"Content-Disposition")


def mails() -> Iterator[tuple[str, Maker]]:
    body = b"\nSubject: x\n\nhello there\n"
    for header, (name, payload) in itertools.product(HEADERS, PAYLOADS.items()):
        yield f"{header.decode()} of {name}", place_with("odd.eml", header + b": " + payload + body)
    nested = (b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(3_000))
    yield "nested parts", place_with("odd.eml", b"".join(nested) + body)
    yield "nested messages", place_with("odd.eml", b"Content-Type: message/rfc822\n\n" * 20_000 + body)
    parts = b"--b\n\nx\n" * 60_000
    yield "many parts", place_with("odd.eml", b'Content-Type: multipart/mixed; boundary="b"\n\n' + parts)
    yield "only headers", place_with("odd.eml", b"X: y\n" * 50_000)
    yield "endless comments", place_with("odd.eml", b"Content-Type: text/html\n\n" + b"<!--" * 50_000)
    yield "a body of no encoding", place_with("odd.eml", b"Content-Type: text/plain; charset=no\n\n\xff\xfe\n")
    good = b"From a\nSubject: good\n\n" + GOOD.encode() + b"\n\n"
    for name, odd in {
        "a long message": b"From b\n\n" + b"x" * (2 << 20),
        "nested parts": b"From b\n" + b"Content-Type: message/rfc822\n\n" * 20_000,
        "brackets": b"From b\nFrom: " + b"(" * 300 + body,
        "nothing but beginnings": b"From \n\n" * 20_000,
        "no message": b"From b",
        "zeros": b"From b\n\n" + bytes(1_000),
        "quoted beginnings": b"From b\n\n" + b">" * 100_000 + b"From \n",
    }.items():
        yield f"mailbox of {name}", file_of("odd.mbox", good + odd)
    yield "mailbox without a beginning", place_with("odd.mbox", b"hello\n\nFrom a\n\nb\n")


# --------------------------------------------------------------------------- chats

CHATGPT = {
    "title": "t",
    "mapping": {
        "a": {"message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["hi"]}}},
        "b": {
            "parent": "a",
            "message": {
                "author": {"role": "assistant"},
                "create_time": 1,
                "content": {"content_type": "text", "parts": ["yes"]},
            },
        },
    },
    "current_node": "b",
}
CLAUDE = {
    "uuid": "u",
    "name": "n",
    "chat_messages": [
        {"sender": "human", "text": "hi", "content": [{"type": "text", "text": "hi"}], "created_at": "2024-01-01"},
        {"sender": "assistant", "text": "yes", "content": [], "created_at": "2024-01-01"},
    ],
}
TELEGRAM = {
    "name": "n",
    "type": "personal_chat",
    "id": 1,
    "messages": [
        {"id": 1, "type": "message", "date": "2024-01-01T00:00:00", "from": "Ann", "text": "hi"},
        {"id": 2, "type": "message", "date_unixtime": "1", "from": "Bo", "text": [{"type": "bold", "text": "yes"}]},
    ],
}
DISCORD = {
    "guild": {"name": "g"},
    "channel": {"name": "c"},
    "messages": [
        {"type": "Default", "timestamp": "2024-01-01", "content": "hi", "author": {"name": "Ann"}},
        {"type": "Default", "timestamp": "2024-01-01", "content": "yes", "author": {"name": "Bo"}},
    ],
}
SIGNAL = [
    {"sender": "Ann", "body": "hi", "timestamp": 1, "conversation": "c"},
    {"sender": {"name": "Bo"}, "body": "yes", "timestamp": "2024-01-01", "conversation": "c"},
]
EXPORTS: Mapping[str, Any] = {
    "ChatGPT": [CHATGPT],
    "Claude": [CLAUDE],
    "Telegram": TELEGRAM,
    "Discord": DISCORD,
    "Signal": SIGNAL,
}
VALUES = ("5", "null", "[1]", '{"a": 1}', '"x"', "1e400", "[" * 2_000 + "]" * 2_000)


def fields_of(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a value."""
    if at:
        yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from fields_of(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...]) -> Any:
    """The value with a mark in this place."""
    if not at:
        return "\0mark"
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(copy[at[0]], at[1:])
    return copy


def chats() -> Iterator[tuple[str, Maker]]:
    odd = itertools.cycle(VALUES)
    for export, whole in EXPORTS.items():
        for at in fields_of(whole):
            value = next(odd)
            text = json.dumps(replaced(whole, at)).replace(json.dumps("\0mark"), value)
            name = f"{export}, {'.'.join(map(str, at))} is {value[:8]}"
            yield name, file_of("result.json" if export == "Telegram" else "conversations.json", text)
    for date in ("31/12/9999, 10:00", "99/99/99, 99:99", "1.1.0000, 1:1", "0/0/0, 0:00 PM"):
        yield f"WhatsApp of {date}", file_of("_chat.txt", f"[{date}] Ann: hi\n[{date}] Bo: yes\n")
    begun = "[1/1/2024, 10:00] Ann: hi\n"
    yield "WhatsApp of one long message", file_of("_chat.txt", begun + "more\n" * 300_000 + "[1/1/2024, 10:01] Bo: yes")
    yield "WhatsApp of one person", file_of("_chat.txt", begun * 50_000 + "[1/1/2024, 10:01] Bo: yes")


# --------------------------------------------------------------------------- repositories


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    """What git says."""
    done = subprocess.run(["git", *arguments], cwd=folder, input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


def tree(folder: Path, *entries: tuple[str, str, bytes]) -> str:
    """A tree of (mode, id, name), as it is: git's own commands refuse odd names."""
    raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(id) for mode, id, name in entries)
    return git(folder, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)


def repository(odd: Callable[[Path, str], list[tuple[str, str, bytes]]], when: str = "1 +0000") -> Maker:
    """A commit, made at this time, of a good file and the entries that `odd` makes of a repository and a content."""

    def make(folder: Path) -> str:
        git(folder, "init", "--quiet")
        blob = git(folder, "hash-object", "-w", "--stdin", stdin=GOOD.encode())
        made = tree(folder, *sorted([("100644", blob, b"good.txt"), *odd(folder, blob)], key=lambda e: e[2]))
        who = f"A <a@example.org> {when}"
        commit = f"tree {made}\nauthor {who}\ncommitter {who}\n\nx\n".encode()
        id = git(folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=commit)
        (folder / ".git" / "HEAD").write_text(id + "\n")
        return str(folder)

    return make


def shared(folder: Path, leaf: str, depth: int) -> str:
    """Ten to this power paths."""
    for _ in range(depth):
        leaf = tree(folder, *(("40000", leaf, str(i).encode()) for i in range(10)))
    return leaf


def damaged(folder: Path, blob: str, content: bytes | None) -> list[tuple[str, str, bytes]]:
    """A file whose content is replaced in git's store, or removed."""
    id = git(folder, "hash-object", "-w", "--stdin", stdin=b"another")
    stored = folder / ".git" / "objects" / id[:2] / id[2:]
    stored.unlink()
    if content is not None:
        stored.write_bytes(content)
    return [("100644", id, b"odd.txt")]


def repositories() -> Iterator[tuple[str, Maker]]:
    for when in (f"{1 << 58} +0000", "253402300800 +0000", "-99999999999999 +0000", "x +0000", "9" * 5_000 + " +0000"):
        yield f"made at {when[:20]}", repository(lambda folder, blob: [], when)
    for name in (
        b"\xff.txt",
        b"a\nb.txt",
        b"..",
        b"a/b.txt",
        b".git",
        b"a" * 5_000,
        b"\x1b[31m.txt",
        "é\u202e.txt".encode(),
    ):
        yield f"a file called {name[:12]!r}", repository(lambda folder, blob, n=name: [("100644", blob, n)])  # type: ignore[misc]
    for mode in ("120000", "160000", "100755", "100664", "777"):
        yield f"a file of mode {mode}", repository(lambda folder, blob, m=mode: [(m, blob, b"odd")])  # type: ignore[misc]
    for name, content in (("missing", None), ("empty", b""), ("no zlib", b"garbage"), ("cut off", b"x\x9c\xcb")):
        yield f"a content that is {name}", repository(lambda f, b, c=content: damaged(f, b, c))  # type: ignore[misc]
    yield "a tree that is missing", repository(lambda folder, blob: [("40000", "1" * 40, b"odd")])
    yield "a tree that is a file", repository(lambda folder, blob: [("40000", blob, b"odd")])
    yield "a file that is a tree", repository(lambda f, b: [("100644", shared(f, tree(f), 1), b"odd.txt")])
    yield "10^10 paths", repository(lambda f, b: [("40000", shared(f, tree(f, ("100644", b, b"a")), 10), b"odd")])
    yield "10^10 empty folders", repository(lambda f, b: [("40000", shared(f, tree(f), 10), b"odd")])
    yield (
        "one content 1,000 times",
        repository(lambda f, b: [("40000", shared(f, tree(f, ("100644", b, b"a.txt")), 3), b"o")]),
    )


# --------------------------------------------------------------------------- the web


def page(body: str = "", head: str = "") -> str:
    return f"<!DOCTYPE html><html><head>{head}</head><body><p>{GOOD}</p>{body}</body></html>"


PAGES: Mapping[str, str] = {
    "40,000 attributes": page(f"<p {' '.join(f'a{i}=1' for i in range(40_000))}>x"),
    "200,000 paragraphs": page("<p>a paragraph of it</p>" * 200_000),
    "20,000 words in bold": page("<b>bold</b> and " * 20_000),
    "20,000 links": page("<a href='/x'>link</a> " * 20_000),
    "depth": page("<div>" * 3_000),
    "depth of words": page("<b><i>" * 3_000),
    "lists in lists": page("<ul><li>x" * 300),
    "tables in tables": page("<table><tr><td>x" * 300),
    "endless comments": page("<!--" * 50_000),
    "endless tags": page("<a " * 50_000),
    "endless quotes": page("<a href='" * 50_000),
    "endless ends": page("</" * 20_000),
    "ends of nothing": page("<div>" * 900 + "</b></p></i>" * 20_000),
    "entities": page("&amp;" * 100_000),
    "entities that are none": page("&#99999999999;&#xd800;&nosuch;" * 1_000),
    "scripts": page("<script>" * 5_000),
    "linked data that is deep": page("", f"<script type='application/ld+json'>{'[' * 100_000}</script>"),
    "linked data of odd types": page(
        "", '<script type="application/ld+json">{"license": {"@id": 5}, "author": [[]], "@graph": 5}</script>'
    ),
    "2,000 licences": page("", "".join(f"<link rel=license href='https://x.org/{i}'>" for i in range(2_000))),
    "2,000 commons": page("".join(f"<a href='https://creativecommons.org/x{i}'>x</a>" for i in range(2_000))),
    "a long licence": page("", f"<meta name=license content='{'(' * 5_000}'>"),
    "many metas": page("", "<meta name=author content=x>" * 50_000),
    "a base that is none": page("<a href=x>x</a>", "<base href='http://['>"),
    "zeros": page("\0" * 10_000),
    "nothing": "",
    "a mark alone": "\ufeff",
    "frames": "<frameset>" * 2_000,
    "declarations": "<!DOCTYPE" * 10_000,
    "xml": f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'b'>]><x>{'&a;' * 1_000}</x>",
}
WITHIN = "<url><loc>{}</loc></url>"
LISTS: Mapping[str, str] = {
    "200,000 addresses": "<urlset>" + "".join(WITHIN.format(f"/x{i}") for i in range(200_000)),
    "one address 100,000 times": "<urlset>" + WITHIN.format("/good") * 100_000,
    "addresses that are none": "<urlset>" + WITHIN.format("http://[") * 1_000,
    "long addresses": "<urlset>" + WITHIN.format("/" + "x" * 100_000) * 10,
    "depth": "<urlset>" + "<url>" * 100_000,
    "elements": "<urlset>" + "<a/>" * 300_000,
    "an entity": "<!DOCTYPE x [<!ENTITY a 'b'>]><urlset>" + WITHIN.format("&a;"),
    "itself": "<sitemapindex><sitemap><loc>/odd</loc></sitemap></sitemapindex>",
    "attributes": "<urlset " + " ".join(f"a{i}='x'" for i in range(20_000)) + ">",
    "no end": "<urlset><url><loc>",
    "feed of items": "<rss version='2.0'><channel>" + "<item><link>/good</link></item>" * 2_000,
    "feed of depth": "<rss version='2.0'><channel>" + "<item>" * 3_000,
    "feed of dates": "<rss><channel>" + "<item><pubDate>99 Foo 99999</pubDate><link>/good</link></item>" * 50,
    "feed of markup": "<feed><entry><content type='xhtml'>" + "<div>" * 3_000,
    "feed of nothing": "<rss/>",
    "feed of bytes": "<rss version='2.0'>" + "\x00\x01\x02" * 1_000,
}


def web(answer: Callable[[Site], None]) -> Maker:
    """A site with a good page and an odd one."""

    def make(folder: Path) -> str:
        site = Site.now  # type: ignore[attr-defined]
        site.pages.clear()
        site.html("/good", f"<p>{GOOD}</p>")
        answer(site)
        (folder / "addresses").write_text(f"{site.url('/odd')}\n{site.url('/good')}\n")
        return f"addresses:{folder / 'addresses'}"

    return make


def pages() -> Iterator[tuple[str, Maker]]:
    for name, text in PAGES.items():
        yield f"page of {name}", web(lambda site, t=text: site.put("/odd", t, "text/html"))  # type: ignore[misc]
    for name, text in LISTS.items():
        yield f"list of {name}", web(lambda site, t=text: site.put("/odd", t, "application/xml"))  # type: ignore[misc]
    for items in ("5", "null", '{"a": 1}', "[1, null]", '[{"url": 5}]', "[" * 5_000):
        text = f'{{"version": "https://jsonfeed.org/version/1", "items": {items}}}'
        yield (
            f"feed whose items are {items[:10]}",
            web(lambda site, t=text: site.put("/odd", t, "application/feed+json")),
        )  # type: ignore[misc]
    bomb = gzip.compress(bytes(80 << 20))
    for name, content, headers in (
        ("compressed zeros", bomb, {"Content_Encoding": "gzip"}),
        ("no compression", b"plain", {"Content_Encoding": "gzip"}),
        ("an unknown compression", b"plain", {"Content_Encoding": "x-odd"}),
        ("a time of the year 10000", page().encode(), {"Last_Modified": "Fri, 31 Dec 10000 23:59:59 GMT"}),
        ("a time that is none", page().encode(), {"Last_Modified": "9" * 5_000}),
        ("links in a header", page().encode(), {"Link": "<" * 8_000}),
        ("preferences", page().encode(), {"Content_Usage": "=" * 5_000, "X_Robots_Tag": "," * 5_000}),
        ("a charset that is none", page().encode(), {"Content_Type": "text/html; charset=" + "x" * 5_000}),
        ("a charset that lies", page().encode("utf-16"), {"Content_Type": "text/html; charset=ascii"}),
    ):
        yield f"answer of {name}", web(lambda site, c=content, h=headers: site.put("/odd", c, "text/html", **h))  # type: ignore[misc]
    for name, kind in (
        ("png", "image/png"),
        ("pdf", "application/pdf"),
        ("wav", "audio/wav"),
        ("nothing", "x" * 5_000),
    ):
        yield f"page that is said to be {name}", web(lambda site, k=kind: site.put("/odd", b"odd", k))  # type: ignore[misc]
    yield "redirects in a circle", web(lambda site: site.redirect("/odd", "/odd"))
    yield "a redirect to nothing", web(lambda site: site.redirect("/odd", "http://["))
    for name, text in (
        ("bytes", "\x00\xff" * 5_000),
        ("agents", "user-agent: *\n" * 20_000),
        ("stars", f"user-agent: *\ndisallow: /{'*a' * 1_000}b"),
    ):
        yield (
            f"robots.txt of {name}",
            web(lambda site, t=text: (site.put("/robots.txt", t), site.put("/odd", page()))[0]),
        )  # type: ignore[misc]
    for text in ("[" * 50_000, "5", '[{"location": 5, "tdm-reservation": []}]'):
        yield f"tdmrep.json of {text[:8]}", web(lambda site, t=text: site.put("/.well-known/tdmrep.json", t))  # type: ignore[misc]


# --------------------------------------------------------------------------- web archives


def record(block: bytes, length: int | None = None, **more: str) -> bytes:
    """A record of a web archive, which may lie about its length."""
    head = {
        "WARC-Type": "response",
        "WARC-Target-URI": "http://example.org/odd",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "Content-Type": "application/http",
        "Content-Length": str(len(block) if length is None else length),
    } | {k.replace("_", "-"): v for k, v in more.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"WARC/1.1\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"


OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"


def archives() -> Iterator[tuple[str, Maker]]:
    good = record(OK + page().encode())
    for name, odd in {
        "a length of 2^62": record(OK, 1 << 62),
        "a length below zero": record(OK, -5),
        "a length that is none": record(OK, **{"Content-Length": "x"}),
        "a length that is short": record(OK + page().encode(), 10),
        "a date of the year 10000": record(OK + page().encode(), WARC_Date="10000-01-01T00:00:00Z"),
        "a date that is none": record(OK + page().encode(), WARC_Date="x"),
        "an address that is none": record(OK + page().encode(), WARC_Target_URI="http://["),
        "a long address": record(OK + page().encode(), WARC_Target_URI="http://x/" + "y" * 100_000),
        "a status that is none": record(b"HTTP/1.1 abc\r\n\r\nx"),
        "no head": record(b"hello"),
        "a head without end": record(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000),
        "chunks that lie": record(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nx"),
        "brotli that is none": record(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nx"),
        "compressed zeros": record(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(80 << 20))
        ),
        "attributes": record(OK + PAGES["40,000 attributes"].encode()),
        "garbage": b"garbage" * 10_000,
        "an odd version": b"WARC/9.9\r\n\r\n\r\n",
        "headers without end": b"WARC/1.1\r\n" + b"a: b\r\n" * 50_000,
    }.items():
        yield f"web archive with {name}", file_of("odd.warc", good + odd)
    yield (
        "a compressed web archive that is cut off",
        file_of("odd.warc.gz", gzip.compress(good) + gzip.compress(good)[:50]),
    )


# --------------------------------------------------------------------------- tables

COLUMNS = ("text", "label", "title", "author", "time", "license", "group", "consent")
ODD = (
    "5", "null", "[[1]]", '{"a": {"b": 1}}', "NaN", "-Infinity", "1e999", "true",
    '"\\ud800"', '"\\u0000"', json.dumps("(" * 3_000), json.dumps("MIT AND " * 200), "9" * 5_000, "[" * 5_000,
)  # fmt: skip


def rows() -> Iterator[tuple[str, Maker]]:
    good = json.dumps({"text": GOOD, "label": "x", "license": "MIT"})
    for column, value in itertools.product(COLUMNS, ODD):
        row = '{"text": "another text"}' if column != "text" else "{}"
        odd = row[:-1] + (", " if column != "text" else "") + f'"{column}": {value}}}'
        yield f"a {column} of {value[:9]}", file_of("odd.jsonl", f"{good}\n{odd}\n")


def excel(folder: Path) -> str:
    """A sheet of 20,000 rows that have one cell each, far to the right: 300 million cells in 200 kB."""
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(["text"])
    sheet.append([GOOD])
    book.save(folder / "odd.xlsx")
    with zipfile.ZipFile(folder / "odd.xlsx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    far = "".join(f'<row r="{i}"><c r="XFD{i}"><v>1</v></c></row>' for i in range(3, 20_000)).encode()
    with zipfile.ZipFile(folder / "odd.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"</sheetData>", far + b"</sheetData>"))
    return str(folder / "odd.xlsx")


def parquet(folder: Path) -> str:
    """One text of 1 MB that a million rows name: some kB that become a terabyte."""
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000), pa.array(["x" * (1 << 20)]))})
    pq.write_table(table, folder / "odd.parquet", compression="zstd")
    (folder / "good.jsonl").write_text(json.dumps({"text": GOOD}))
    return str(folder)


def sqlite(script: str) -> Maker:
    """A data base in which the table or view `odd` is read."""

    def make(folder: Path) -> list[SourcePlace]:
        with contextlib.closing(sqlite3.connect(folder / "odd.sqlite")) as base, base:
            base.executescript(script)
        options = {"query": "odd", "key": "id", "max_items": 200}
        return [place_of(f"sqlite:///{folder / 'odd.sqlite'}", options)]

    return make


def tables() -> Iterator[tuple[str, Maker]]:
    good = f'text,label\n"{GOOD}",x\n'
    for name, text in {
        "fields": "," * 100_000,
        "a quote without end": '"' + "never ends\n" * 20_000,
        "quotes": '"' * 10_001,
        "zeros": "\0,\0\n" * 100,
        "carriage returns": "\r" * 10_000,
        "a row of 3 MB": "x" * (3 << 20) + ",y",
        "surrogates": "\ud800,x",
        "empty rows": "\n" * 100_000,
    }.items():
        yield f"CSV of {name}", file_of("odd.csv", good + text)
    for name, raw in {
        "a header of 20,000 columns": ",".join(f"c{i}" for i in range(20_000)).encode(),
        "equal columns": b"a,a\n1,2\n",
        "no text": b"a,b\n1,2\n",
        "bytes": bytes(range(256)) * 50,
        "UTF-32": "text\nx\n".encode("utf-32"),
    }.items():
        yield f"CSV of {name}", place_with("odd.csv", raw)
    for name, text in {
        "depth": "[" * 100_000,
        "a number": "9" * 10_000,
        "items that are no list": '{"items": 5}',
        "lists of lists": "[[[[]]]]",
        "keys": "{" + ",".join(f'"k{i}": 1' for i in range(20_000)) + "}",
        "half": '[{"text": "x"}, ',
        "a name twice": '{"text": "x", "text": 5}',
    }.items():
        yield f"JSON of {name}", place_with("odd.jsonl" if name in ("keys", "a number") else "odd.json", text)
    yield (
        "JSON lines of 5,000,000 values",
        file_of("odd.jsonl", json.dumps({"text": GOOD}) + "\n[" + "1," * 5_000_000 + "1]"),
    )
    yield "a sheet of 300 million cells", excel
    for name, content in {"garbage": b"PK\3\4garbage", "nothing": b"PK\5\6" + bytes(18)}.items():
        yield f"Excel of {name}", place_with("odd.xlsx", content)
    yield "Parquet of one text a million times", parquet
    for suffix in ("parquet", "arrow", "feather"):
        yield f"{suffix} of garbage", place_with(f"odd.{suffix}", b"PAR1" + b"garbage" * 100 + b"PAR1")
    yield "data base of garbage", file_of("odd.sqlite", b"SQLite format 3\0" + bytes(2_000))
    endless = f"with recursive n(i) as (select 1 union all select i + 1 from n) select i id, '{GOOD}' || i text from n"
    yield "data base of an endless view", sqlite(f"create view odd as {endless};")
    first = f"create table odd(id integer primary key, text); insert into odd values (1, '{GOOD}')"
    yield "data base of a row of 100 MB", sqlite(f"{first}, (2, zeroblob(100000000));")
    yield "data base of odd types", sqlite(f"{first}, (2, x'ff'), (3, 1e999);")


# --------------------------------------------------------------------------- examples, objects, names, archives


def tar(members: Mapping[str, bytes], *raw: bytes, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue() + b"".join(raw)


def examples() -> Iterator[tuple[str, Maker]]:
    good = {"0.txt": GOOD.encode(), "0.json": b"{}", "1.txt": b"another", "1.json": b"{}"}
    for name, odd in {
        "metadata of depth": {"2.txt": b"x", "2.json": b"[" * 100_000},
        "metadata that is not an object": {"2.txt": b"x", "2.json": b"5"},
        "metadata of odd types": {"2.txt": b"x", "2.json": b'{"label": [[]], "time": {"a": 1}, "license": 5}'},
        "numbers": {"2.txt": b"x", "2.json": b'{"time": ' + b"9" * 5_000 + b"}"},
        "an image that is none": {"2.jpg": b"\xff\xd8\xffgarbage", "2.txt": b"x"},
        "bytes": {"2.txt": b"\xff\xfe\x00", "2.json": b"{}"},
        "endings": {f"2.{i}": b"x" for i in range(2_000)},
        "names": {"../2.txt": b"x", "/3.txt": b"x", "a\nb.txt": b"x"},
        "two texts": {"2.txt": b"x", "2.text": b"y", "2.caption": b"z"},
    }.items():
        yield f"examples with {name}", file_of("odd.tar", tar(good | odd))
    whole = tar(good)
    for name, raw in {
        "cut off": whole[:3_000],
        "garbage": whole[:2_048] + b"x" * 2_048,
        "no archive": b"x" * 5_000,
    }.items():
        yield f"examples that are {name}", place_with("odd.tar", raw)


def endless() -> Iterator[str]:
    yield GOOD
    for i in itertools.count():
        yield f"text {i}"


def broken() -> Iterator[str]:
    yield GOOD
    raise RecursionError("of the program")


def objects() -> Iterator[tuple[str, Maker]]:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    circle: dict[str, Any] = {"text": "x"}
    circle["self"] = circle
    values: dict[str, Any] = {
        "an object": object(),
        "depth": deep,
        "a circle": circle,
        "a number": 5,
        "a great number": 10**5_000,
        "nothing": None,
        "bytes": b"\xff" * 100,
        "an empty array": np.zeros((0, 0, 3), np.uint8),
        "an array of objects": np.array([object()], object),
        "a broad array": np.zeros((2, 2, 2, 2, 2)),
        "NaN": float("nan"),
        "a path of nothing": Path("/no/such/file"),
        "a pipe": Path("/dev/null"),
        "columns that differ": {"text": ["a", "b"], "label": ["x"]},
        "a surrogate": "\ud800",
        "an odd time": {"text": "x", "time": float("inf")},
        "an odd licence": {"text": "x", "license": "(" * 3_000},
        "a sound of no rate": {"array": [0.0], "sampling_rate": 0},
    }
    for name, value in values.items():
        yield f"object: {name}", lambda folder, v=value: places_of([GOOD, v], "odd")  # type: ignore[misc]
    yield "object: an iterator without end", lambda folder: places_of(endless, "odd", {"max_items": 50})
    yield "object: an iterator that fails", lambda folder: places_of(broken, "odd")


def names() -> Iterator[tuple[str, Maker]]:
    for name in (
        b"\xff\xfe.txt",
        b"a\nb.txt",
        b"\x1b[31m.txt",
        b"x" * 250 + b".txt",
        b"a\\b.txt",
        "\u202e.txt".encode(),
    ):
        yield f"a file called {name[:8]!r}", place_with(os.fsdecode(name), "another text")
    for when in (1 << 40, -(1 << 37), 253402300800):

        def make(folder: Path, when: int = when) -> str:
            (folder / "good.txt").write_text(GOOD)
            (folder / "odd.txt").write_text("another text")
            os.utime(folder / "odd.txt", (0, when))
            return str(folder)

        yield f"a file of the time {when}", make
    for kind in ("fifo", "circle", "dangling", "outside"):

        def link(folder: Path, kind: str = kind) -> str:
            (folder / "good.txt").write_text(GOOD)
            if kind == "fifo":
                os.mkfifo(folder / "odd.txt")
            else:
                to = {"circle": "odd.txt", "dangling": "nothing", "outside": "/etc/passwd"}[kind]
                (folder / "odd.txt").symlink_to(to)
            return str(folder)

        yield f"a {kind} in place of a file", link
    png = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 50_000, 50_000) + b"\x08\x02\0\0\0"
    )
    for name, content in {
        "odd.png": png + bytes(100),
        "odd.jpg": b"\xff\xd8\xff" + bytes(100),
        "odd.gif": b"GIF89a" + b"\xff" * 100,
        "odd.wav": b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(100),
        "odd.flac": b"fLaC" + b"\xff" * 100,
        "odd.mp3": b"\xff\xfb" * 500,
        "odd.mid": b"MThd\0\0\0\6\0\1\xff\xff\0\x60MTrk\xff\xff\xff\xff",
        "odd.pdf": b"%PDF-1.7\n1 0 obj<</Type/Pages/Kids[1 0 R]>>endobj\ntrailer<</Root 1 0 R>>",
        "odd.docx": b"PK\3\4" + bytes(50),
        "odd.epub": b"PK\5\6" + bytes(18),
        "odd.odt": b"PK\5\6" + bytes(18),
        "odd.txt": b"\xff" * 10_000,
        "odd.py": b"(" * 100_000,
        "odd.md": b"[" * 50_000,
        "odd.html": PAGES["20,000 words in bold"].encode(),
        "odd.svg": b"<svg>" * 1_000,
        "odd.gz": gzip.compress(b"x")[:10],
        "odd.txt.gz": gzip.compress(bytes(100 << 20)),
        "odd.zip": b"PK\3\4" + bytes(100),
    }.items():
        yield f"a damaged {name}", place_with(name, content)


def collected() -> Iterator[tuple[str, Maker]]:
    """Data sets that were collected before, by somebody else."""

    def data_set(known: Any, **row: Any) -> Maker:
        def make(folder: Path) -> str:
            base = {f.name: "" if f.type == pa.string() else None for f in SCHEMA} | {"kind": "text"}
            rows = [{**base, "text": GOOD, "where": "good", "file": None}, {**base, "where": "odd", **row}]
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "items.parquet")
            (folder / "dataset.json").write_text(json.dumps({"format": FORMAT, "items": known, "sources": 5}))
            return str(folder)

        return make

    for file in ("/etc/passwd", "../../../../../../etc/passwd", "blobs/../dataset.json", "blobs/none", "/dev/zero"):
        yield f"a data set with the file {file}", data_set({}, file=file, kind="image")
    for items in (5, [], None, {"text": "x"}):
        yield f"a data set whose items are {items}", data_set(items, text="another text")
    yield "a data set of an odd kind", data_set({}, text="x", kind="odd")
    yield "a data set of a conversation that is none", data_set({}, text="5", kind="conversation")
    yield "a data set of an odd licence", data_set({}, text="x", licence="(" * 3_000)


GROUPS: Mapping[str, Callable[[], Iterator[tuple[str, Maker]]]] = {
    "mails": mails,
    "chats": chats,
    "repositories": repositories,
    "pages": pages,
    "archives": archives,
    "rows": rows,
    "tables": tables,
    "examples": examples,
    "objects": objects,
    "names": names,
    "collected": collected,
}
LOWERED: Mapping[str, Any] = {  # limits that much data would need
    "afresh.data.text.mail.LONGEST": 1 << 20,
    "afresh.services.collect.sources.repository.MOST_FILES": 5_000,
    "afresh.services.collect.sources.repository.LISTING": 1,
    "afresh.services.collect.sources.sql.LIMITS": Limits(seconds=1),
    "afresh.services.collect.sources.tables.LONGEST": 1 << 20,
    "afresh.services.collect.sources.tables.MOST_VALUES": 1_000_000,
    "afresh.services.collect.sources.tables.MOST_CELLS": 2_000_000,
    "afresh.services.collect.fetching.listings.MOST_ELEMENTS": 250_000,
}


def main(folder: Path, group: str) -> None:
    """Collect every source of a group, and print what became of each."""
    from importlib import import_module

    for name, value in LOWERED.items():
        module, _, attribute = name.rpartition(".")
        setattr(import_module(module), attribute, value)
    os.environ |= {"AFRESH_PRIVATE_NETWORKS": LOOPBACK, "AFRESH_CONTACT": "me@example.org", "AFRESH_HOME": str(folder)}
    os.fsync = lambda handle: None  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    with serving() as site:
        Site.now = site  # type: ignore[attr-defined]
        for number, (name, make) in enumerate(GROUPS[group]()):
            print(json.dumps({"begun": name}), flush=True)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # whose signal ends the process, wherever it is
            print(json.dumps({"name": name} | collect(folder / str(number), make)), flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps({"peak": peak_memory()}), flush=True)


def collect(folder: Path, make: Maker) -> dict[str, Any]:
    """How many good texts and items were collected of a source and of a good folder, and the first reasons."""
    beside = folder / "beside"
    beside.mkdir(parents=True)
    (beside / "good.txt").write_text(f"{GOOD} It lies in another folder.")
    (folder / "odd").mkdir()
    told: list[str] = []
    places: list[SourcePlace] = []
    try:
        made = make(folder / "odd")
        options = {"delay": 0, "max_wait": 1, "retries": 0, "max_pages": 5}
        web = isinstance(made, str) and made.startswith("addresses:")
        places = [place_of(made, options if web else {})] if isinstance(made, str) else made
    except UserError as error:  # it is not a place, as the message says
        told.append(str(error))
    known = gather([*places, place_of(str(beside))], folder / "set", assembly={"near": "keep"})
    texts = [r["text"] for r in pq.read_table(folder / "set" / "items.parquet").to_pylist()]
    told += [r["reason"] for r in pq.read_table(folder / "set" / "rejected.parquet").to_pylist()]
    told += map(str, known.get("failures", {}).values())
    return {"good": sum(str(text).startswith(GOOD) for text in texts), "items": len(texts), "reasons": told[:3]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
