"""Many addresses are fetched side by side, and found in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

from blake3 import blake3

from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.fetching.addresses import canonical, host
from afresh.services.collect.fetching.fetcher import FetchedPage, Fetcher, found
from afresh.services.collect.fetching.host_queues import running_loop
from afresh.services.collect.fetching.listings import kind_of, listed
from afresh.services.collect.fetching.refused import RefusedAddress, as_refused
from afresh.services.collect.record import Found, Rejection
from afresh.services.collect.sources import CONSUMED

AHEAD = 256  # addresses that are fetched before those in front of them are found
FIRST = 16  # likewise at the beginning, so that a collection that ends soon asks for little more than it takes
NESTED = 3  # sitemaps in sitemaps
# Addresses of lists and links that are looked at: so many for each that may be added, as they repeat, and a few more.
LOOKED_AT, FEW = 20, 1_000


@dataclass(frozen=True)
class Bounds:
    """follow: how far links within a host are followed. pages: that lists and links may add. group: whether the pages
    of a host stay on one side of the split."""

    follow: int = 0
    pages: int = 10_000
    group: bool = False


@dataclass
class FrontierEntry:
    """An address in its turn. depth: links that were followed to it. nested: lists in which it is listed."""

    address: str
    depth: int = 0
    nested: int = 0
    ready: Future[None] | None = None


def crawl(place: str, given: Iterator[str], fetcher: Fetcher, bounds: Bounds) -> Iterator[Found | Rejection]:
    """What is at the addresses that are given; in the place of a list, what is at those that it lists; at last, what
    links lead to. The order is that of the addresses, whichever server is faster."""
    with running_loop(fetcher.lanes.close) as loop:
        yield from Crawl(place, given, fetcher, bounds, loop).run()


@dataclass
class Crawl:
    place: str
    given: Iterator[str]
    fetcher: Fetcher
    bounds: Bounds
    loop: asyncio.AbstractEventLoop
    ahead: deque[FrontierEntry | Rejection] = field(default_factory=deque)
    linked: deque[FrontierEntry] = field(default_factory=deque)  # by links: waits until the rest is fetched
    seen: set[bytes] = field(default_factory=set)
    added: int = 0  # by lists and links
    left: int = 0  # that were more than may be added
    looked: int = 0  # at addresses of lists and links
    count: int = 0  # of what was found

    def run(self) -> Iterator[Found | Rejection]:
        for one in self._all():
            self.count += 1
            yield one

    def _all(self) -> Iterator[Found | Rejection]:
        while self._look_ahead():
            entry = self.ahead.popleft()
            if isinstance(entry, Rejection):
                yield entry
                continue
            if self._was_written(entry):
                yield CONSUMED
                continue
            assert entry.ready is not None
            entry.ready.result()
            try:
                yield from self._found(entry, self.fetcher.page(entry.address))
            except RefusedAddress as error:
                yield self._rejection(entry.address, error)
        if self.left:
            reason = f"{self.left:,} more addresses were listed or linked to than the option max_pages allows"
            yield Rejection(self.place, self.place, "find", "max_pages", reason)

    def _was_written(self, entry: FrontierEntry) -> bool:
        """Whether what is found here was written before the collection was interrupted, and leads nowhere."""
        written = self.count < self.fetcher.fetched.consumed
        return written and entry.depth >= self.bounds.follow and self.fetcher.is_single(entry.address)

    def _look_ahead(self) -> bool:
        """Begin to fetch the addresses that come next; returns whether there are any."""
        wanted = min(AHEAD, FIRST + self.count)
        while len(self.ahead) < wanted:
            if (written := next(self.given, None)) is not None:
                self.ahead.extend(self._entries([written], "", FrontierEntry("")))
            elif self.linked:
                self.ahead.append(self.linked.popleft())
            else:
                break
        for entry in islice(self.ahead, wanted):
            if isinstance(entry, FrontierEntry) and entry.ready is None:
                entry.ready = asyncio.run_coroutine_threadsafe(self.fetcher.fetch(entry.address), self.loop)
        return bool(self.ahead)

    def _entries(self, written: list[str], base: str, of: FrontierEntry) -> list[FrontierEntry | Rejection]:
        """The addresses among these that are new, in their order, and those that are none."""
        out: list[FrontierEntry | Rejection] = []
        for word in written:
            try:
                address = canonical(word, base)
            except RefusedAddress as error:
                out.append(self._rejection(word[:200], error))
                continue
            self.looked += bool(base)
            key = blake3(address.encode()).digest(16)
            if key in self.seen:
                continue
            if base and self.added >= self.bounds.pages:
                self.left += 1
                continue
            self.added += bool(base)
            self.seen.add(key)
            out.append(FrontierEntry(address, of.depth, of.nested))
        return out

    def _open(self) -> int:
        """How many addresses of lists and links are still looked at: many more than may be added, as they repeat."""
        return 0 if self.added >= self.bounds.pages else max(0, LOOKED_AT * self.bounds.pages + FEW - self.looked)

    def _found(self, entry: FrontierEntry, page: FetchedPage) -> Iterator[Found | Rejection]:
        if kind_of(page.content):
            yield from self._list(entry, page)
            return
        try:
            with parsing("page"):
                if entry.depth < self.bounds.follow:
                    self._follow(entry, page)
                one = found(entry.address, page, self.bounds.group)
        except FileError as error:
            yield self._rejection(entry.address, as_refused(error))
            return
        yield one

    def _list(self, entry: FrontierEntry, page: FetchedPage) -> Iterator[Rejection]:
        """Put what a list names in its place."""
        if entry.nested >= NESTED:
            reason = f"a list in a list in a list: more than {NESTED} are not followed"
            yield Rejection(self.place, entry.address, "find", "nested", reason)
            return
        written, left, problem = listed(page.content, page.address, self._open())
        self.left += left
        if problem:
            yield Rejection(self.place, entry.address, "find", "list", problem)
        entries = self._entries(written, page.address, FrontierEntry("", entry.depth, entry.nested + 1))
        self.ahead.extendleft(reversed(entries))

    def _follow(self, entry: FrontierEntry, page: FetchedPage) -> None:
        """Links to the same host wait for their turn, unless the page says that they are not to be followed."""
        head = page.head
        words = {w.strip() for content in head.meta("robots", "afresh") for w in content.lower().split(",")}
        if words & {"nofollow", "none"}:
            return
        try:
            base = canonical(head.base, page.address)
        except RefusedAddress:
            base = page.address
        here = host(page.address)
        links = [link.href for link in head.links if link.element == "a" and "nofollow" not in link.rel]
        most = self._open()
        self.left += len(links[most:])
        for link in links[:most]:
            self.looked += 1
            try:
                if host(canonical(link, base)) != here:
                    continue
            except RefusedAddress:  # as mailto:
                continue
            for one in self._entries([link], base, FrontierEntry("", entry.depth + 1, entry.nested)):
                if isinstance(one, FrontierEntry):
                    self.linked.append(one)

    def _rejection(self, where: str, error: RefusedAddress) -> Rejection:
        return Rejection(self.place, where, "find", error.rule, error.reason)
