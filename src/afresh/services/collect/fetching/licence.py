"""The licence that a page states, as an expression of SPDX, and where it states it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx

from afresh.services.collect.fetching.html_metadata import PageHead
from afresh.services.collect.licences import normalised_or_unknown
from afresh.services.collect.record import UNKNOWN

METAS = ("license", "licence", "dc.rights", "dcterms.license", "dcterms.rights", "dc.license", "og:license")
COMMONS = re.compile(
    r"creativecommons\.org/(?:licen[sc]es|publicdomain)/(?P<code>[a-z+-]+)(?:/(?P<version>\d\.\d))?(?:/(?P<place>[a-z]{2,3})\b)?",
    re.IGNORECASE,
)
WORDS = re.compile(r"\bCC[ -]?(?P<code>BY(?:[ -](?:NC|ND|SA))*|0)\b[ -]?(?:v(?:ersion)? ?)?(?P<version>\d\.\d)?", re.I)
OTHERS = (  # addresses of licences, and what they are in SPDX
    (re.compile(r"apache\.org/licenses/LICENSE-2\.0", re.IGNORECASE), "Apache-2.0"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?gpl-2\.0", re.IGNORECASE), "GPL-2.0-only"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/gpl-3\.0", re.IGNORECASE), "GPL-3.0-only"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/fdl-1\.3", re.IGNORECASE), "GFDL-1.3-only"),
    (re.compile(r"gnu\.org/(?:licenses|copyleft)/(?:old-licenses/)?fdl-1\.2", re.IGNORECASE), "GFDL-1.2-only"),
    (re.compile(r"nationalarchives\.gov\.uk/doc/open-government-licence/version/3", re.IGNORECASE), "OGL-UK-3.0"),
)
NAMED = re.compile(
    r"(?:spdx\.org/licenses|opensource\.org/licen[sc]es?)/(?P<name>[\w.+-]+?)(?:\.html)?/?$", re.IGNORECASE
)
STATED = 100  # texts at one place of a page that are looked at: to look for the licence that is meant takes long
JSON_DEPTH = 8  # of structured data that is looked into


def licence_of(head: PageHead, headers: httpx.Headers) -> tuple[str, str]:
    """(the licence of a page, where it is stated); ("unknown", "") if it is not stated or not recognised.

    The surest place counts: rel=license, then structured data, then meta elements, then the address of a licence of
    Creative Commons that the page links to, if it is one alone. Several licences at one place hold together: AND.
    """
    places = (
        ("a link of the header", _linked(headers)),
        ("rel=license on the page", [link.href for link in head.links if "license" in link.rel]),
        ("JSON-LD on the page", [text for data in head.data for text in _structured(data)]),
        ("a meta element of the page", head.meta(*METAS)),
    )
    for place, texts in places:
        found = list(dict.fromkeys(spdx for spdx in map(spdx_of, islice(texts, STATED)) if spdx))
        if found:
            return " AND ".join(sorted(found)), place
    linked = (link.href for link in head.links if "creativecommons.org" in link.href)
    commons = set(map(spdx_of, islice(linked, STATED))) - {""}
    return (commons.pop(), "a link on the page") if len(commons) == 1 else (UNKNOWN, "")


def spdx_of(text: str) -> str:
    """The licence of SPDX that an address or a name means; nothing if it is not recognised.

    https://creativecommons.org/licenses/by-sa/4.0/ -> CC-BY-SA-4.0
    """
    text = text.strip()[:300]
    if found := COMMONS.search(text):
        return _commons(found["code"], found["version"] or "", found["place"] or "")
    for pattern, licence in OTHERS:
        if pattern.search(text):
            return licence
    if found := NAMED.search(text):
        text = found["name"]
    elif found := WORDS.search(text):
        code = "zero" if found["code"] == "0" else re.sub(r"[ -]+", "-", found["code"])
        return _commons(code, found["version"] or "", "")
    return _known(text)


def _commons(code: str, version: str, place: str) -> str:
    """A licence of Creative Commons. One without a version is not known: versions differ."""
    code = code.upper()
    if code in ("ZERO", "MARK"):
        return "CC0-1.0" if code == "ZERO" else "CC-PDM-1.0"
    if not version:
        return ""
    return _known(f"CC-{code}-{version}-{place.upper()}" if place else "") or _known(f"CC-{code}-{version}")


def _known(text: str) -> str:
    """The expression in the spelling of SPDX; nothing if it is none."""
    found = normalised_or_unknown(text)
    return "" if found == UNKNOWN else found


def _linked(headers: httpx.Headers) -> list[str]:
    """Where headers Link of the relation license lead (RFC 8288)."""
    found = re.findall(r"<([^>]*)>([^<]*)", ",".join(headers.get_list("link"))[:8_000])
    return [target for target, rest in found if re.search(r"rel\s*=\s*\"?[^\";]*\blicense\b", rest, re.IGNORECASE)]


def _structured(data: str) -> Iterator[str]:
    """The licences of JSON-LD: of the thing itself and what it lists, not of the images in it."""
    try:
        yield from _licences(json.loads(data), 0)
    except (ValueError, RecursionError):
        return


def _licences(value: Any, depth: int) -> Iterator[str]:
    if depth > JSON_DEPTH:
        return
    if isinstance(value, list):
        for one in value[:100]:
            yield from _licences(one, depth + 1)
    elif isinstance(value, dict):
        stated = value.get("license")
        for one in stated if isinstance(stated, list) else [stated]:
            text = (one.get("@id") or one.get("url") or one.get("name")) if isinstance(one, dict) else one
            if isinstance(text, str):
                yield text
        for key in ("@graph", "mainEntity"):
            yield from _licences(value.get(key), depth + 1)
