"""How many requests a caller may send, and how often a wrong key may be tried.

After a few wrong keys from an address, a key from there is looked at only after a pause, right or wrong, and at most so
many wait at once: that bounds the tries. No key is shut out: one that was right from an address before is let in
there at once, sessions are not keys, and other addresses do not wait.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter, OrderedDict

from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.sessions import hashed

WRONG_FREE = 10.0  # wrong keys a minute of one address before its keys wait
WRONG_FREE_ALL = 120.0  # of all addresses together
PAUSE = 1.0  # seconds that a key waits
MOST_WAITING = 32  # keys of one address
MOST_KNOWN = 10_000  # owners, addresses and right keys that are remembered


class Allowances:
    """How many requests each owner may still send. An allowance that was not used is kept for a minute, so that a page
    or a program may send several at once (a token bucket)."""

    def __init__(self, rate: float) -> None:
        """`rate`: requests a minute."""
        self.rate, self.most = rate, max(1.0, rate)
        self.known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many requests at which time, in seconds

    def left(self, owner: str, now: float) -> float:
        """Requests that the owner may send at this time, in seconds."""
        left, then = self.known.get(owner, (self.most, now))
        return min(self.most, left + (now - then) * self.rate / 60)

    def take(self, owner: str, now: float) -> float:
        """Take one request away, if there is one; returns how many there were."""
        left = self.left(owner, now)
        if left >= 1:
            self.known[owner] = (left - 1, now)
            self.known.move_to_end(owner)
        while len(self.known) > MOST_KNOWN:
            self.known.popitem(last=False)
        return left

    def spend(self, owner: str, now: float) -> None:
        """Raises Refused if the owner has sent too many."""
        if (left := self.take(owner, now)) < 1:
            message = f"This key has sent more than {self.rate:g} requests a minute. Try again later."
            raise RefusedRequest(429, message, "rate_limit_exceeded", retry=math.ceil((1 - left) * 60 / self.rate))


class Tries:
    """The keys that addresses have tried."""

    def __init__(self) -> None:
        self.wrong, self.wrong_all = Allowances(WRONG_FREE), Allowances(WRONG_FREE_ALL)
        self.right: OrderedDict[tuple[str, str], None] = OrderedDict()  # addresses, and the hashes of their right keys
        self.waiting: Counter[str] = Counter()

    async def wait(self, address: str, key: str) -> None:
        """Returns when this key may be looked at. Raises Refused if too many of its address wait."""
        now, address = time.monotonic(), network(address)
        free = self.wrong.left(address, now) >= 1 and self.wrong_all.left("", now) >= 1
        if free or (address, hashed(key)) in self.right:
            return
        if self.waiting[address] >= MOST_WAITING:
            message = "Too many wrong keys came from this address. Try again in a moment."
            raise RefusedRequest(429, message, "too_many_tries", retry=math.ceil(PAUSE))
        self.waiting[address] += 1
        try:
            await asyncio.sleep(PAUSE)
        finally:
            self.waiting[address] -= 1
            self.waiting += Counter()  # forgets those of which none waits

    def note(self, address: str, key: str, right: bool) -> None:
        """Remember that a key was looked at, and whether it was right."""
        now, address = time.monotonic(), network(address)
        if not right:
            self.wrong.take(address, now)
            self.wrong_all.take("", now)
            return
        self.right[address, hashed(key)] = None
        self.right.move_to_end((address, hashed(key)))
        if len(self.right) > MOST_KNOWN:
            self.right.popitem(last=False)


def network(address: str) -> str:
    """What one person has many addresses of: the first 64 bits of an address of IPv6."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
