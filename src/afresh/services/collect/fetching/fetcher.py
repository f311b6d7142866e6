"""An address becomes a page: robots.txt is asked, redirects are followed, and usage preferences are obeyed.

Whatever is fetched, or refused, is put into `Fetched` and asked for there first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from afresh import __version__
from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.fetching.addresses import Network, canonical, host, origin, path
from afresh.services.collect.fetching.content import HTML, as_utf8, media_type, name
from afresh.services.collect.fetching.host_queues import REDIRECTING, REDIRECTS, HostAnswer, Lanes, Patience
from afresh.services.collect.fetching.html_metadata import PageHead, read_head
from afresh.services.collect.fetching.licence import licence_of
from afresh.services.collect.fetching.listings import kind_of
from afresh.services.collect.fetching.preferences import (
    AGENT,
    MAX_BYTES,
    Robots,
    TdmRule,
    objections,
    statements,
    tdm_rules,
)
from afresh.services.collect.fetching.refused import RefusedAddress, as_refused
from afresh.services.collect.fetching.response_body import ENCODINGS
from afresh.services.collect.record import About, Found
from afresh.services.collect.sources import Fetched, Unavailable

FRESH = 24 * 3600.0  # seconds for which robots.txt may be kept (RFC 9309, 2.4)
# Headers that are kept.
KEPT = "content-type etag last-modified link x-robots-tag content-usage content-signal tdm-reservation tdm-policy"


@dataclass(frozen=True)
class FetchedPage:
    """What was fetched. address: after redirects. said: the usage preferences, in words. overridden: those among them
    that say no and were not obeyed, by rule."""

    address: str
    headers: httpx.Headers
    content: bytes
    said: str = ""
    overridden: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The media type. Raises Refused if the server says that it is text and it is not."""
        return media_type(self.headers.get("content-type", ""), self.content)

    @property
    def head(self) -> PageHead:
        """What it says of itself, if it is HTML. Raises Refused as `type` does."""
        return read_head(self.text) if self.type in HTML else PageHead()

    @property
    def text(self) -> bytes:
        """The content of a text in UTF-8."""
        return as_utf8(self.headers.get("content-type", ""), self.content)


@dataclass(frozen=True)
class Site:
    """What holds for all addresses of an origin."""

    robots: Robots
    tdm: Sequence[TdmRule]


class Fetcher:
    """Fetches pages, one at a time from each host. Used within one event loop."""

    def __init__(
        self,
        fetched: Fetched,
        patience: Patience,
        *,
        contact: str = "",
        hosts: int = 16,
        overridden: Collection[str] = (),
        private: Sequence[Network] = (),
    ) -> None:
        self.fetched, self.patience, self.overridden = fetched, patience, overridden
        self.lanes = Lanes(patience, private, hosts)
        self.headers = {"User-Agent": agent(contact), "Accept-Encoding": ENCODINGS, "Accept": "*/*"}
        self.sites: dict[str, asyncio.Task[Site]] = {}
        self.reached = False  # whether any host answered

    async def fetch(self, address: str) -> None:
        """See that an address is fetched, or that it is known why not. Raises Unavailable if there is no network."""
        known = self.fetched.facts(address)
        if known is not None and known.get("rule") not in self.overridden:
            return
        try:
            with parsing("answer"):
                page = await self._follow(address)
        except FileError as problem:
            error = as_refused(problem)
            if error.rule == "offline" and not self.reached:
                raise Unavailable(error.reason, "offline") from None
            self.fetched.put(address, b"", {"rule": error.rule, "reason": error.reason, "at": time.time()})
            return
        headers = [(n, v) for n, v in page.headers.multi_items() if n in KEPT.split()]
        facts: dict[str, Any] = {"final": page.address, "headers": headers, "said": page.said, "at": time.time()}
        if page.overridden:
            facts["overridden"] = dict(page.overridden)
        if kind_of(page.content):
            facts["list"] = True
        self.fetched.put(address, page.content, facts)

    def is_single(self, address: str) -> bool:
        """Whether it is known that one thing is found at an address, or a reason why it is not taken."""
        facts = self.fetched.facts(address)
        return facts is not None and "list" not in facts

    def page(self, address: str) -> FetchedPage:
        """What `fetch` kept. Raises Refused if the address was not taken."""
        kept = self.fetched.get(address)
        if kept is None:
            raise RefusedAddress("lost", "what was fetched was removed from the folder of the data set")
        content, facts = kept
        if "rule" in facts:
            raise RefusedAddress(facts["rule"], facts["reason"])
        for rule, reason in facts.get("overridden", {}).items():
            if rule not in self.overridden:
                raise RefusedAddress(rule, reason)
        return FetchedPage(facts["final"], headers_of(facts["headers"]), content, facts["said"])

    async def _follow(self, address: str) -> FetchedPage:
        """Fetch an address and what it redirects to. Each is checked as the first was. Pages are read in a thread of
        their own, so that others are fetched meanwhile."""
        old = self.fetched.stale(address)
        url, seen = address, {address}
        for _ in range(REDIRECTS + 1):
            site = await self.site(origin(url))
            if not site.robots.allows(url):
                raise RefusedAddress("robots.txt", f"robots.txt of {origin(url)} forbids it")
            unchanged = old is not None and old[1].get("final") == url
            headers = {**self.headers, **(_conditions(old[1]) if old and unchanged else {})}
            answer = await self.lanes.get(url, headers, self.patience.max_bytes)
            self.reached = True
            if answer.status in REDIRECTING and "location" in answer.headers:
                url = canonical(answer.headers["location"], url)
                if url in seen:
                    raise RefusedAddress("redirect", f"it redirects in a circle, by {url}")
                seen.add(url)
            elif answer.status == 304 and old and unchanged:
                kept = headers_of(old[1]["headers"])
                kept.update(answer.headers)
                return await asyncio.to_thread(obeying, FetchedPage(url, kept, old[0]), self.overridden, site)
            else:
                return await asyncio.to_thread(obeying, _page(url, answer), self.overridden, site)
        raise RefusedAddress("redirect", f"it redirects more than {REDIRECTS} times")

    async def site(self, of: str) -> Site:
        """What holds for an origin. Raises Refused if its robots.txt cannot be had."""
        if of not in self.sites:
            self.sites[of] = asyncio.create_task(self._site(of))
        return await self.sites[of]

    async def _site(self, of: str) -> Site:
        try:
            robots = Robots(await self._well_known(f"{of}/robots.txt"))
        except RefusedAddress as error:
            if error.rule != "status":
                raise
            raise RefusedAddress(
                "robots.txt", f"{error.reason}; until it can be read, nothing of the site is taken"
            ) from None
        lane = self.lanes.of(of)
        lane.delay = max(lane.delay, robots.delay)
        if lane.delay > self.patience.wait:
            raise RefusedAddress(
                "robots.txt", f"robots.txt asks for {robots.delay:,g} s between requests, more than the option max_wait"
            )
        try:
            tdm = tdm_rules(await self._well_known(f"{of}/.well-known/tdmrep.json"))
        except RefusedAddress:  # "implies that the origin server does not implement this protocol" (TDMRep)
            tdm = []
        return Site(robots, tdm)

    async def _well_known(self, address: str) -> bytes:
        """A file that a site may have, from this day; empty if it has none (RFC 9309, 2.3.1). Raises Refused if the
        server fails."""
        key = f"{AGENT}:{address}"  # apart from pages, of which it may be one too
        kept = self.fetched.get(key)
        if kept is None or not 0 <= time.time() - kept[1]["at"] < FRESH:
            facts: dict[str, Any] = {}
            content = b""
            try:
                content = await self._asked(address)
            except RefusedAddress as error:
                if error.rule == "offline":
                    raise
                facts = {"rule": error.rule, "reason": f"{address}: {error.reason}"}
            self.fetched.put(key, content, {**facts, "at": time.time()})
            kept = content, facts
        if "rule" in kept[1]:
            raise RefusedAddress(kept[1]["rule"], kept[1]["reason"])
        return kept[0]

    async def _asked(self, address: str) -> bytes:
        url = address
        for _ in range(REDIRECTS + 1):
            answer = await self.lanes.get(url, self.headers, MAX_BYTES, cut=True)
            self.reached = True
            if answer.status >= 500:
                raise RefusedAddress("status", f"the server answered {answer.status}")
            if answer.status not in REDIRECTING or "location" not in answer.headers:
                return answer.content
            url = canonical(answer.headers["location"], url)
        return b""


def headers_of(pairs: Iterable[Sequence[str]]) -> httpx.Headers:
    """Headers whose values may not be ASCII."""
    raw = [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in pairs]
    return httpx.Headers(raw, encoding="utf-8")


def obeying(page: FetchedPage, overridden: Collection[str], site: Site | None = None) -> FetchedPage:
    """The page with what its publisher says. Raises Refused for what may not be trained on, except lists of addresses,
    whose content is not taken."""
    if kind_of(page.content):
        return page
    image = page.type.startswith("image/")
    robots, tdm = (site.robots, site.tdm) if site else (None, ())
    said = statements(path(page.address), page.headers, page.head, robots, tdm, image)
    refusals = objections(said)
    for rule, reason in refusals.items():
        if rule not in overridden:
            raise RefusedAddress(rule, reason)
    return FetchedPage(page.address, page.headers, page.content, "; ".join(map(str, said)), refusals)


def agent(contact: str) -> str:
    """Who asks, as "afresh/0.1 (+mailto:me@example.org)"."""
    return f"{AGENT}/{__version__}" + (f" (+{contact})" if contact else "")


def _page(url: str, answer: HostAnswer) -> FetchedPage:
    if answer.status not in (200, 203):
        raise RefusedAddress("status", f"the server answered {answer.status}")
    return FetchedPage(url, answer.headers, answer.content)


def _conditions(facts: Mapping[str, Any]) -> dict[str, str]:
    """The headers that ask for a page only if it changed."""
    headers = headers_of(facts["headers"])
    pairs = (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified"))
    return {name: headers[stated] for name, stated in pairs if stated in headers}


def found(where: str, page: FetchedPage, group: bool, time: str = "") -> Found:
    """The page at an address with its licence and preferences. group: whether the pages of a host stay on one side of
    the split. time: when it was fetched, if the server does not say when it was changed."""
    kind = page.type
    stated = page.headers.get("content-type", "")
    licence, licence_from = licence_of(page.head, page.headers)
    about = About(
        licence=licence,
        licence_from=licence_from,
        time=_changed(page) or time,
        group=host(page.address) if group else "",
        preferences=page.said,
        extra={"address": page.address} if page.address != where else {},
    )
    content = page.text if kind.startswith("text/") or kind in HTML else page.content
    return Found(where, content, name(page.address, kind), stated if stated.startswith(kind) else kind, about=about)


def _changed(page: FetchedPage) -> str:
    """When the page was last changed, as its server says."""
    try:
        return parsedate_to_datetime(page.headers.get("last-modified", "")).astimezone(UTC).isoformat()
    except (ValueError, TypeError, OverflowError):
        return ""
