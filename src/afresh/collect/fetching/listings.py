"""Sitemaps, their indexes, and feeds: lists of the addresses of others."""

from __future__ import annotations

import io
import re
import zlib
from xml.etree.ElementTree import ParseError

import feedparser
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from afresh.collect.fetching.body import GZIP, MB, gunzipped
from afresh.collect.fetching.refused import Refused

MAX_MB = 64  # of a list when it is decompressed (sitemaps.org allows 50)
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


def listed(content: bytes, address: str) -> tuple[list[str], str]:
    """The addresses in a sitemap, an index of sitemaps or a feed, as they are written, and what is wrong with the list.

    What stands before a mistake counts.
    """
    try:
        content = gunzipped(content, MAX_MB * MB)
    except Refused as error:
        return [], error.reason
    return _sitemap(content) if kind_of(content) in SITEMAPS else _feed(content, address)


def _sitemap(content: bytes) -> tuple[list[str], str]:
    found: list[str] = []
    parents: list[str] = []
    try:
        for event, element in iterparse(io.BytesIO(content), ("start", "end")):
            if event == "start":
                parents.append(_local(element.tag))
                continue
            parents.pop()
            if _local(element.tag) == "loc" and parents and parents[-1] in ("url", "sitemap") and element.text:
                found.append(element.text.strip())
            if parents and parents[-1] in SITEMAPS:
                element.clear()
    except ParseError as error:
        return found, f"the sitemap is not well formed after {len(found):,} addresses: {error}"
    except DefusedXmlException:
        return found, "the sitemap defines entities of XML, which may grow without end"
    return found, ""


def _feed(content: bytes, address: str) -> tuple[list[str], str]:
    # A stream and never the text itself, which feedparser would take for an address or the name of a file.
    try:
        feed = feedparser.parse(
            io.BytesIO(content), response_headers={"content-location": address}, sanitize_html=False
        )
    except Exception as error:  # it raises almost any class of exception for damaged feeds
        return [], f"the feed cannot be read: {error or type(error).__name__}"
    found = [entry["link"] for entry in feed.entries if entry.get("link")]
    problem = f"the feed is not well formed: {feed.get('bozo_exception')}" if feed.bozo and not found else ""
    return found, problem


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()
