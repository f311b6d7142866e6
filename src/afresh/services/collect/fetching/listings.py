"""Sitemaps, their indexes, and feeds: lists of the addresses of others."""

from __future__ import annotations

import io
import re
import zlib
from typing import Any
from xml.etree.ElementTree import ParseError

import feedparser
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from afresh.data.files import FileError
from afresh.data.limits import Limits, Meter, parsing
from afresh.services.collect.fetching.refused import RefusedAddress
from afresh.services.collect.fetching.response_body import GZIP, MB, gunzipped

MAX_MB = 64  # of a list when it is decompressed (sitemaps.org allows 50)
MAX_FEED_MB = 8  # of a feed, whose parser is slow
MOST_ELEMENTS, DEEPEST = 5_000_000, 100  # of a sitemap
START = 4096  # bytes in which the root element must begin
BEFORE = re.compile(rb"(?s)\s*(<\?.*?\?>|<!--.*?-->|<!doctype[^>\[]*(?:\[.*?\]\s*)?>)", re.IGNORECASE)
ROOT = re.compile(rb"\s*<(?:\w+:)?(urlset|sitemapindex|rss|feed|rdf)\b", re.IGNORECASE)
SITEMAPS = ("urlset", "sitemapindex")


def kind_of(content: bytes) -> str:
    """The root element of a list, as "urlset" or "rss"; nothing if the content is not one."""
    if content.startswith(GZIP):
        try:
            content = zlib.decompressobj(31).decompress(content[:START], START)
        except zlib.error:
            return ""
    start, at = content[:START].removeprefix(b"\xef\xbb\xbf"), 0
    while found := BEFORE.match(start, at):
        at = found.end()
    root = ROOT.match(start, at)
    return root[1].decode("ascii").lower() if root else ""


def listed(content: bytes, address: str, most: int) -> tuple[list[str], int, str]:
    """The first addresses, at most so many, in a sitemap, an index of sitemaps or a feed, as they are written; how many
    more there are; and what is wrong with the list. What stands before a mistake counts."""
    try:
        content = gunzipped(content, MAX_MB * MB)
    except RefusedAddress as error:
        return [], 0, error.reason
    found, problem = _Addresses(most), ""
    try:
        with parsing("list"):
            problem = _sitemap(content, found) if kind_of(content) in SITEMAPS else _feed(content, address, found)
    except FileError as error:
        problem = str(error)
    return found.first, found.left, problem


class _Addresses:
    """The first of some addresses, and the number of the others."""

    def __init__(self, most: int) -> None:
        self.most, self.first, self.left = most, list[str](), 0

    def add(self, address: str) -> None:
        if len(self.first) < self.most:
            self.first.append(address)
        else:
            self.left += 1


def _sitemap(content: bytes, found: _Addresses) -> str:
    parents: list[Any] = []
    meter = Meter(Limits(items=MOST_ELEMENTS))
    try:
        for event, element in iterparse(io.BytesIO(content), ("start", "end")):
            if event == "start":
                meter.add(items=1)
                parents.append(element)
                if len(parents) > DEEPEST:
                    return f"the sitemap is nested more than {DEEPEST:,} deep"
                continue
            parents.pop()
            within = _local(parents[-1].tag) if parents else ""
            if _local(element.tag) == "loc" and within in ("url", "sitemap") and element.text:
                found.add(element.text.strip())
            if within in SITEMAPS:
                parents[-1].clear()  # which would hold all that were read
    except ParseError as error:
        return f"the sitemap is not well formed after {len(found.first) + found.left:,} addresses: {error}"
    except DefusedXmlException:
        return "the sitemap defines entities of XML, which may grow without end"
    return ""


def _feed(content: bytes, address: str, found: _Addresses) -> str:
    if len(content) > MAX_FEED_MB * MB:
        return f"a feed of {len(content) / MB:,.0f} MB; at most {MAX_FEED_MB} MB are read"
    # A stream and never the text itself, which feedparser would take for an address or the name of a file.
    feed = feedparser.parse(io.BytesIO(content), response_headers={"content-location": address}, sanitize_html=False)
    for entry in feed.entries:
        if entry.get("link"):
            found.add(entry["link"])
    return f"the feed is not well formed: {feed.get('bozo_exception')}" if feed.bozo and not found.first else ""


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()
