"""One host: a connection at a time, a pause between requests, and patience that has an end."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from threading import Thread

import httpx

from afresh.services.collect.fetching.addresses import Network, host, look_up, public
from afresh.services.collect.fetching.refused import RefusedAddress
from afresh.services.collect.fetching.response_body import Body

REDIRECTS = 5  # that are followed, as RFC 9309, 2.3.1.2, asks of robots.txt
REDIRECTING = (301, 302, 303, 307, 308)
AGAIN = (429, 500, 502, 503, 504)  # answers after which the same may be asked again
TRIED = 3  # addresses of the network of one host, if the first cannot be connected to
CONNECT = 10.0  # seconds until the next of them is tried
GIVE_UP = 3  # addresses in a row for which a host gave no answer, after which it is not asked again


@dataclass(frozen=True)
class Patience:
    """delay: seconds between two requests to a host. seconds: that one answer may take, to its end. wait: that a host
    may ask to be left alone. retries: after failures. max_bytes: of a content."""

    delay: float = 1.0
    seconds: float = 60.0
    wait: float = 120.0
    retries: int = 2
    max_bytes: int = 64 << 20


@dataclass(frozen=True)
class HostAnswer:
    """What a server answered. The content is that of the statuses 200 and 203, and else empty."""

    status: int
    headers: httpx.Headers
    content: bytes


@asynccontextmanager
async def answered(
    transport: httpx.AsyncHTTPTransport, url: str, addresses: Sequence[str], headers: Mapping[str, str]
) -> AsyncIterator[httpx.Response]:
    """What is answered for a URL. Connections go to these addresses, of which the first may be out of order, and which
    no later answer of the name service can change; the certificate is that of the name."""
    named, last = httpx.URL(url), addresses[:TRIED][-1]
    for address in addresses[:TRIED]:
        request = httpx.Request(
            "GET",
            named.copy_with(host=address),
            headers={"Host": named.netloc.decode("ascii"), **headers},
            extensions={"sni_hostname": named.raw_host.decode("ascii"), "timeout": {"connect": CONNECT}},
        )
        try:
            answer = await transport.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == last:
                raise
            continue
        answer.request = request
        try:
            yield answer
        finally:
            await answer.aclose()
        return


class HostQueue:
    """The way to one host, which is looked up once."""

    def __init__(self, name: str, patience: Patience, private: Sequence[Network], context: ssl.SSLContext) -> None:
        self.name, self.patience, self.private = name, patience, private
        self.delay = patience.delay
        self.lock = asyncio.Lock()
        self.free_at = 0.0  # by the clock of the loop
        self.unreachable = 0
        self.addresses: list[str] = []
        self.transport = httpx.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=httpx.Limits(max_connections=1, keepalive_expiry=30)
        )

    async def get(
        self, url: str, headers: Mapping[str, str], limit: int, cut: bool, many: asyncio.Semaphore
    ) -> HostAnswer:
        """Ask for an address, again if it fails. `cut`: whether what is over the limit is left out and not refused.

        Raises Refused if there is no answer.
        """
        async with self.lock:
            if self.unreachable >= GIVE_UP:
                raise RefusedAddress("host", f"{self.name} gave no answer {GIVE_UP} times in a row")
            rule = problem = ""
            for attempt in range(self.patience.retries + 1):
                if (left := self.free_at - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(left)
                pause = self.delay * 2.0 ** (attempt + 1)
                try:
                    async with many, asyncio.timeout(self.patience.seconds):
                        answer = await self._ask(url, headers, limit, cut)
                except TimeoutError:
                    self._asked()
                    self.unreachable += 1
                    await self.transport.aclose()
                    raise RefusedAddress(
                        "time", f"no whole answer in {self.patience.seconds:g} s, the option max_seconds"
                    ) from None
                except (httpx.TransportError, OSError, ValueError) as error:
                    rule = "offline" if isinstance(error, OSError) else "connection"
                    problem = f"the connection failed: {str(error) or type(error).__name__}"
                    self.addresses = []  # which may have changed
                except RefusedAddress:
                    self._asked()
                    raise
                else:
                    self.unreachable = 0
                    if answer.status not in AGAIN:
                        self._asked()
                        return answer
                    rule, problem = "status", f"the server answered {answer.status}"
                    pause = max(pause, self._asked_to_wait(answer))
                self._asked(pause)
            self.unreachable += rule != "status"
            raise RefusedAddress(rule, problem)

    async def _ask(self, url: str, headers: Mapping[str, str], limit: int, cut: bool) -> HostAnswer:
        self.addresses = self.addresses or public(self.name, await look_up(self.name), self.private)
        async with answered(self.transport, url, self.addresses, headers) as response:
            if response.status_code not in (200, 203):
                return HostAnswer(response.status_code, response.headers, b"")
            stated = response.headers.get("content-length", "")
            if stated.isdecimal() and len(stated) < 20 and int(stated) > limit and not cut:
                raise RefusedAddress(
                    "size", f"{int(stated):,} bytes, more than the {limit:,} of the option max_file_mb"
                )
            body = Body(response.headers.get("content-encoding", ""), limit)
            try:
                async for data in response.aiter_raw():
                    body.add(data)
                content = body.whole()
            except RefusedAddress:
                if not cut:
                    raise
                content = body.start()
            return HostAnswer(response.status_code, response.headers, content)

    def _asked(self, pause: float = 0.0) -> None:
        self.free_at = asyncio.get_running_loop().time() + max(self.delay, pause)

    def _asked_to_wait(self, answer: HostAnswer) -> float:
        """The seconds of Retry-After, which is a number or a date. Raises Refused if they are too many."""
        said = answer.headers.get("retry-after", "").strip()
        seconds = 0.0
        if said.isdecimal():
            seconds = float(said)
        elif said:
            with suppress(ValueError, TypeError, OverflowError):  # a date that is none
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
        if seconds > self.patience.wait:
            self._asked()
            reason = (
                f"the server answered {answer.status} and asks to wait {seconds:,.0f} s, more than the option max_wait"
            )
            raise RefusedAddress("status", reason)
        return max(seconds, 0.0)


@cache
def certificates() -> ssl.SSLContext:
    """Whose certificates are believed. They take long to read."""
    return httpx.create_ssl_context(trust_env=False)


class Lanes:
    """The ways to all hosts, at most `hosts` of which are asked at a time."""

    OPEN = 200  # connections that are kept

    def __init__(self, patience: Patience, private: Sequence[Network], hosts: int) -> None:
        self.patience, self.private = patience, private
        self.context = certificates()
        self.many = asyncio.Semaphore(hosts)
        self.lanes: dict[str, HostQueue] = {}
        self.used: dict[str, HostQueue] = {}  # those with connections; the one that was used last is at the end

    def of(self, url: str) -> HostQueue:
        """The way to the host of an address."""
        name = host(url)
        if name not in self.lanes:
            self.lanes[name] = HostQueue(name, self.patience, self.private, self.context)
        return self.lanes[name]

    async def get(self, url: str, headers: Mapping[str, str], limit: int, cut: bool = False) -> HostAnswer:
        """`Lane.get` of the host of an address."""
        lane = self.of(url)
        self.used.pop(lane.name, None)
        self.used[lane.name] = lane
        answer = await lane.get(url, headers, limit, cut, self.many)
        if len(self.used) > self.OPEN:
            oldest = next(iter(self.used.values()))
            if not oldest.lock.locked():
                del self.used[oldest.name]
                await oldest.transport.aclose()
        return answer

    async def close(self) -> None:
        """Close all connections."""
        for lane in self.used.values():
            await lane.transport.aclose()


@contextmanager
def running_loop(close: Callable[[], Awaitable[None]]) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of asyncio in a thread of its own, which runs during the block, so that fetching goes on while what was
    fetched is cleaned. What is unfinished at its end is cancelled, and then `close` is called, so that no connection is
    closed under something that would take it for a failure of the server."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="fetching", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_end(close), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(close: Callable[[], Awaitable[None]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await close()
